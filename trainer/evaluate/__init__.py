"""`python -m trainer.evaluate`: a row a sample, metrics with intervals, figures.

Imports `record` and what lies below it; `loop`, `predict` and `decide` import it.
"""
