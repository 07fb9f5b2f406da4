"""`python -m trainer.predict`: predict pictures from any source as a stream, and write tables.

Imports `evaluate` and the rooms below it.
"""
