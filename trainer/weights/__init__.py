"""Weights to start from: where they are found, whose names they bear, what they expect of a picture."""
