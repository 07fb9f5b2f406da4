"""Ray clusters: join one or start one here, serve a bundle over HTTP with Ray Serve, and ask such an endpoint.

`cluster` imports `shards` and `trainer.contract` and nothing else of the project, and nobody imports `cluster`.
"""

from shards.cli.hidden import refuse_hidden  # of shards, which sets how threads wait, before torch is imported

refuse_hidden("trainer")
