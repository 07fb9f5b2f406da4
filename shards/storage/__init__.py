"""Files here or elsewhere: folders, object stores, http(s), and a cache of shards that a node's processes share.

Imports `files`, `cli`, `workers`, `pictures`, `splits` and `shards.errors`; neither `sources` nor `order`.
"""
