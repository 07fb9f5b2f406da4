"""`python -m trainer.evaluate`: one row per sample, metrics with intervals, figures.

Imports `record` and the rooms below it; `loop`, `predict` and `decide` import it.
"""
