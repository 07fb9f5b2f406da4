"""`python -m trainer.models`: classifiers by name, their sizes and layers.

Imports `weights` and what lies below it.
"""
