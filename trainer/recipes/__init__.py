"""Recipes: YAML files, their options, and the type that they become.

Imports `shards`, `trainer.contract` and `trainer.ranks`.
"""
