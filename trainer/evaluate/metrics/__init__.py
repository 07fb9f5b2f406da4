"""Metrics from rows: metrics, ranking, calibration, bootstrap intervals."""
