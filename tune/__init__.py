"""Sweeps: variants of a recipe, screened on Ray Tune, confirmed with fresh seeds, compared with intervals.

The public Python names are listed in `__init__.pyi` and imported on first use.
"""

import lazy_loader

from shards.cli.hidden import refuse_hidden  # imports shards, which sets how threads wait, before torch is imported

refuse_hidden("trainer")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
