"""Tracking of a run: W&B, TensorBoard, curves."""
