"""Shards to weights to a bundle: the training loop, evaluation and prediction.

Runs without Ray; `run/ray` is the only door through which a Ray Train run enters. What the package offers to Python
stands in `__init__.pyi` and is imported when it is used.
"""

import lazy_loader

import shards  # noqa: F401  it sets how threads wait, before torch is imported

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
