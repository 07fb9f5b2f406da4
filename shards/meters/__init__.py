"""Numbers of a process for Prometheus: what is counted, and a file that holds them.

`shards.workers.ray_meters` hands the same numbers to Ray.
"""
