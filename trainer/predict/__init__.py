"""`python -m trainer.predict`: what is asked about, answers as a stream, and the tables that they become.

Imports `evaluate` and what lies below it.
"""
