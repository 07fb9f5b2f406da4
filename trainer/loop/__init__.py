"""One rank's training: the parts of a run, epochs, early stopping.

Imports `evaluate` and what lies below it; `run` starts it.
"""
