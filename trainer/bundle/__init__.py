"""`python -m trainer.bundle`: make a bundle from a foreign checkpoint.

Imports `predict`, `decide`, `loop` and the rooms below them.
"""
