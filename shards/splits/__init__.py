"""Assignment of pictures to splits: stratified, by group, by order; equal pictures stay together.

Imports only `shards.errors`.
"""
