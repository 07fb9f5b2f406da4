"""`python -m trainer.models`: classifiers by name, their sizes and layers.

Imports `weights` and the rooms below it.
"""
