"""From logits to an answer: calibration, operating points, conformal sets, out-of-distribution scores.

Serving imports it.
"""
