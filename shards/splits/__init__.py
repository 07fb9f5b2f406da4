"""Who is in which split: stratified, by group, by order; equal pictures stay together.

Imports `shards.errors` alone.
"""
