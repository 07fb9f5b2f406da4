"""Bytes to pixels: the one decoder, deep and medical formats, shrinking.

Imports `shards.errors` alone.
"""
