"""What all commands share: their table, the console script, how they end, what they print while they work.

Imports `shards.errors` and `shards.files`.
"""
