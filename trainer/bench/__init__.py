"""`python -m trainer.bench`: compares the back ends of a bundle, and chooses one for serving.

Imports `export` and the rooms below it.
"""
