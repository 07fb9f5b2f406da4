"""Files here or elsewhere: folders, object stores, http(s), and a node's shared cache of shards.

Imports `files`, `cli`, `workers`, `pictures`, `splits` and `shards.errors`; neither `sources` nor `order`.
"""
