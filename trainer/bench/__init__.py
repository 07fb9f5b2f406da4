"""`python -m trainer.bench`: back ends of a bundle in turn, and which one serving takes.

Imports `export` and what lies below it.
"""
