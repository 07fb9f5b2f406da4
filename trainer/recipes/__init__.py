"""Recipes: YAML files, their options, and the class they are parsed into.

Imports `shards`, `trainer.contract` and `trainer.ranks`.
"""
