"""From shards to trained weights to a bundle: training, evaluation and prediction.

Runs without Ray; only `run/ray` uses Ray Train. The public Python names are listed in `__init__.pyi` and imported on
first use.
"""

import lazy_loader

import shards  # noqa: F401  it sets how threads wait, before torch is imported

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
