"""How commands end: exit codes, errors as one sentence, Ctrl-C.

Imports `shards.errors` alone.
"""
