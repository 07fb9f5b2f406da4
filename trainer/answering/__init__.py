"""Prediction: what is asked about, the answers as a stream, and what becomes of them."""
