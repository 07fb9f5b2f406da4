"""Many tasks over processes or Ray tasks, and how OpenMP threads wait.

Imports only `shards.errors`. The only room of the package that uses Ray.
"""
