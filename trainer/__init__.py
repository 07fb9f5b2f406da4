"""Shards to weights to a bundle: the training loop, evaluation and prediction.

Runs without Ray; `launch.py` is the only door through which a Ray Train run enters.
"""
