"""`python -m trainer.decide`: temperature, operating point, sets and Gaussians, fitted on validation.

Imports `evaluate` and the rooms below it.
"""
