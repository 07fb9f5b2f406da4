"""The order of an epoch: a pure function of seed, epoch and shard table.

Imports neither `storage` nor `sources`: it only computes.
"""
