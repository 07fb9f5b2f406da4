"""The Ray Serve application: `build` for `serve run cluster.serve.app:build bundle=PATH`, and the replica itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import torch
from fastapi import FastAPI, HTTPException
from ray import serve
from ray.serve.config import BackpressureConfig
from torch import Tensor

from cluster.serve.api import Prediction, build_api
from cluster.serve.forward import compute_each
from cluster.serve.options import ServeOptions, read_options
from trainer.contract.bundle import Output, read_versions
from trainer.contract.compute.choice import load_with_backend
from trainer.contract.model.names import BACKENDS

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 1
_LOGGING = {"log_level": "WARNING", "enable_access_log": False}


@dataclass
class Stats:
    """Counts of one replica since it started; only its event loop changes them."""

    pictures: int = 0
    """Pictures that went through the model."""
    batches: int = 0
    largest_batch: int = 0


class Replica:
    """One process with the model."""

    def __init__(self, options: ServeOptions) -> None:
        torch.set_num_threads(options.cpus_per_replica)
        device = "cuda" if options.gpus_per_replica and torch.cuda.is_available() else "cpu"
        self.max_bytes = options.max_bytes
        self._options = options
        self._bundle, self._why = load_with_backend(options.bundle, device, options.backend)
        logger.info("the replica %s", self._why)
        self._fingerprint = self._bundle.page.fingerprint()
        self._stats = Stats()
        # Both keep the event loop free. Two decoders, so that one huge picture does not delay all others; one thread
        # for the model, since `serve.batch` runs one batch at a time.
        self._decoders = ThreadPoolExecutor(max(2, options.cpus_per_replica), "decode")
        self._model = ThreadPoolExecutor(1, "model")
        self._compute.set_max_batch_size(options.max_batch_size)
        self._compute.set_batch_wait_timeout_s(options.batch_wait_ms / 1000)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application; Ray Serve calls this after the model is loaded, so that nothing is pickled."""
        return build_api(self)

    async def predict(self, data: bytes) -> Prediction:
        """Return the answer for an encoded picture.

        Raises:
            DecodeError: The picture is refused; it joined no batch.
            HTTPException: 500, the model's logits are not finite.
        """
        image = await asyncio.get_running_loop().run_in_executor(self._decoders, self._bundle.prepare, data)
        output = await self._compute(image)
        if isinstance(output, Exception):
            raise output
        if not bool(output.logits.isfinite().all()):
            raise HTTPException(500, "the model's logits for this picture are not finite; its weights overflow")
        return Prediction(**self._bundle.answer(*output).model_dump(), bundle=self._fingerprint)

    @serve.batch
    async def _compute(self, images: list[Tensor]) -> list[Output | Exception]:
        self._stats.batches += 1
        self._stats.pictures += len(images)
        self._stats.largest_batch = max(self._stats.largest_batch, len(images))
        return await asyncio.get_running_loop().run_in_executor(self._model, compute_each, self._bundle, images)

    def describe_model(self) -> dict[str, Any]:
        """Return a description of the served bundle and its options, as JSON."""
        page = self._bundle.page.model_dump(mode="json")
        wanted = ("model", "preprocess", "classes", "display_names", "task", "positive", "decision")
        return {
            **{name: page[name] for name in wanted},
            "metrics": self._bundle.page.name_metrics(),
            "fingerprints": {"bundle": self._fingerprint, "dataset": page["dataset"], "recipe": page["recipe"]},
            "versions": {"bundle": page["versions"], "endpoint": read_versions()},
            "device": str(self._bundle.device),
            "backend": self._why,
            "options": self._options.model_dump(mode="json"),
            # The rule in use; the bundle also keeps argmax beside an operating point.
            "decision": self._bundle.page.decision.state_rule().model_dump(mode="json"),
        }

    def describe_stats(self) -> dict[str, Any]:
        """Return the counts of this replica, as JSON."""
        return {"replica": serve.get_replica_context().replica_tag, **asdict(self._stats)}


def build(args: Mapping[str, Any]) -> serve.Application:
    """Return the application for options named as in `ServeOptions`.

    The bundle is loaded once here, so that a bad one is refused with its own message before a replica starts.

    Raises:
        UsageError: An unknown or invalid option, no bundle, or a bundle of another version.
        ShardError: A damaged bundle, or one whose probes give other results here.
    """
    options = read_options(args)
    # Back ends that load a file are checked here, because the library or the file may be missing. The others depend on
    # the replica's own CPU or GPU.
    row = BACKENDS.get(options.backend)
    load_with_backend(options.bundle, backend=options.backend if row and row.of_a_file else "eager")
    deployment = serve.deployment(
        name="Replica",
        logging_config=_LOGGING,
        max_constructor_retry_count=2,
        num_replicas=options.replicas,
        max_ongoing_requests=options.max_ongoing,
        max_queued_requests=options.max_queued,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=RETRY_AFTER_S),
        ray_actor_options={"num_cpus": options.cpus_per_replica, "num_gpus": options.gpus_per_replica},
    )
    return deployment(serve.ingress()(Replica)).bind(options)
