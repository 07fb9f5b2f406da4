"""Ranks and the machine they run on: collectives, processes, memory, disk.

Imports `shards` alone.
"""
