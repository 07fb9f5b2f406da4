"""Datasets of other machines: files read by ranges, whole shards downloaded, and a node's shared cache of them."""
