"""Ranks and the machine that they run on: collectives, processes, memory, disk.

Imports `shards` alone.
"""
