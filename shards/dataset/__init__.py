"""A packed dataset: manifest and indexes, reading samples, reading ahead, verifying.

Imports `storage`, `sources`, `order` and the rooms below them.
"""
