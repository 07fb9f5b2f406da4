"""Atomic publishing of files and folders, versioned JSON, fingerprints, sizes.

Imports only `shards.errors`.
"""
