"""Many tasks over processes or Ray tasks, and how threads wait.

Imports `shards.errors` alone. Ray enters the package here and nowhere else.
"""
