"""The Ray Serve application, for `serve run cluster.serve.app:build bundle=PATH` and for files of `serve deploy`.

Ray Serve imports this module in a process of its own before replicas start, so it imports neither torch nor models.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve.config import BackpressureConfig

from cluster.serve.endpoint import DEPLOYMENT, LOGGING
from cluster.serve.options import BATCH_SIZE, ServeOptions, read_options
from cluster.serve.problem import RETRY_AFTER_S
from cluster.serve.rollout import Rollout

if TYPE_CHECKING:
    from fastapi import FastAPI

_QUEUED = 256
"""Requests that a proxy keeps while it looks for a replica with room; a burst needs some."""
_GROW_S = 5.0
"""Seconds of more load after which another replica starts; Ray's default is 30."""


class Replica:
    """One process with the model, as Ray Serve calls it."""

    def __init__(self, options: ServeOptions) -> None:
        from cluster.serve.predictor import Predictor  # late: it imports torch

        self._predictor, self._options = Predictor(options), options

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the pages; Ray Serve calls this in the replica, so that nothing is pickled."""
        from cluster.serve.api import build_api

        return build_api(self._predictor, self._options)

    async def wake(self) -> None:
        """Do nothing: a call lets Ray Serve start a replica where there is none."""

    async def reconfigure(self, config: dict[str, Any]) -> None:
        """Follow a rollout; Ray Serve calls this at the start, and when the service's user_config has changed.

        A replica whose bundles cannot be loaded does not start. A running one goes on with those that it has.
        """
        from cluster.serve.report import publish_report  # late: nothing else needs it in the process that builds

        here = serve.get_replica_context()
        report = await self._predictor.follow(Rollout.model_validate(config))
        await asyncio.to_thread(publish_report, here.app_name, here.replica_id.unique_id, report)


def build(args: Mapping[str, Any]) -> serve.Application:
    """Return the application for options named as in `ServeOptions`.

    Raises:
        UsageError: An unknown or invalid option.
    """
    options = read_options(args)
    deployment = serve.deployment(
        name=DEPLOYMENT,
        logging_config=LOGGING,
        max_constructor_retry_count=2,
        **_count_replicas(options),
        max_ongoing_requests=options.max_connections,
        max_queued_requests=_QUEUED,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=RETRY_AFTER_S),
        ray_actor_options={"num_cpus": options.cpus_per_replica, "num_gpus": options.gpus_per_replica},
        user_config=Rollout(bundle=options.bundle).model_dump(),
    )
    return deployment(serve.ingress()(Replica)).bind(options)


def _count_replicas(options: ServeOptions) -> dict[str, Any]:
    """Return the options of Ray Serve that say how many replicas there are."""
    if options.min_replicas is None:
        return {"num_replicas": options.replicas}
    return {
        "autoscaling_config": {
            "min_replicas": options.min_replicas,
            "max_replicas": options.replicas,
            "initial_replicas": max(1, options.min_replicas),  # so that the bundle is checked before it is ready
            "target_ongoing_requests": options.max_batch_size or BATCH_SIZE,  # as many wait while as many are computed
            "upscale_delay_s": _GROW_S,
            "downscale_delay_s": options.idle_s,
        }
    }
