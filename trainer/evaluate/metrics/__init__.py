"""Numbers from rows: metrics, ranking, calibration, bootstrap intervals."""
