"""Ray clusters: join one or start one here, serve a bundle over HTTP with Ray Serve, and ask such an endpoint.

`cluster` imports `shards` and `trainer.contract` and nothing else of the project, and nobody imports `cluster`. What it
offers to Python stands in `__init__.pyi` and is imported when it is used.
"""

import lazy_loader

from shards.cli.hidden import refuse_hidden  # of shards, which sets how threads wait, before torch is imported

refuse_hidden("trainer")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
