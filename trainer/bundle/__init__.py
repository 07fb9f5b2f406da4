"""`python -m trainer.bundle`: a foreign checkpoint becomes a bundle.

Imports `predict`, `decide`, `loop` and what lies below them.
"""
