"""An epoch's order: a pure function of seed, epoch and shard table.

Imports neither `storage` nor `sources`: it is arithmetic.
"""
