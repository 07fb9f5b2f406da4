"""A run's numbers for people: W&B, TensorBoard, curves."""
