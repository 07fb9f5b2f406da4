"""What all commands share: their table, the console script, exit codes and errors, messages and progress.

Imports `shards.errors` and `shards.files`.
"""
