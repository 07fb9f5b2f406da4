"""Shards to weights to a bundle: the training loop, evaluation and prediction.

Runs without Ray; `launch.py` is the only door through which a Ray Train run enters.
"""

import shards  # noqa: F401  it sets how threads wait, before torch is imported
