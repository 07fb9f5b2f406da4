"""Serve a bundle over HTTP with Ray Serve, on a joined or local Ray cluster, and a client for such an endpoint.

`cluster` imports only `shards` and `trainer.contract` of the project, and no other package imports `cluster`. Its
public names are in `__init__.pyi` and are imported on first use.
"""

import lazy_loader

from shards.cli.hidden import refuse_hidden  # imports shards, which sets how threads wait, before torch is imported

refuse_hidden("trainer")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
