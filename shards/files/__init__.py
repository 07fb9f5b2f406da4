"""Files that are whole or absent: atomic publishing, versioned JSON, fingerprints, sizes.

Imports `shards.errors` alone.
"""
