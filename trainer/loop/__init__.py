"""Training on one rank: building a run, epochs, early stopping.

Imports `evaluate` and the rooms below it; `run` starts it.
"""
