"""A packed dataset: manifest and indexes, reading samples, reading ahead, verifying.

Imports `storage`, `sources`, `order` and what lies below them.
"""
