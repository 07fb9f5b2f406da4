"""Figures from rows: confusion, curves, reliability, thresholds."""
