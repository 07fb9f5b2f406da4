"""Bytes to pixels: the only decoder, deep and medical formats, shrinking.

Imports only `shards.errors`.
"""
