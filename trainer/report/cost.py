"""The cost of a model: its size, and its latency on the machine where the run ended."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from shards.files.sizes import format_size
from trainer.contract.bundle import Bundle
from trainer.contract.intact import WEIGHTS
from trainer.contract.model.model import split_outputs
from trainer.report.sources import LATENCY, Finished

_BATCH = 16
_SECONDS = 0.5
"""Measuring time for one picture and for a batch; at least `_LEAST` rounds are run."""
_LEAST, _MOST = 3, 20
_SLOW = 0.25
"""Seconds per picture above which no batch is measured, because it would take too long."""


def describe_latency(bundle: Bundle) -> str:
    """Return the model's latency on the bundle's device in words, without decoding."""
    shape = bundle.page.preprocess.shape
    noise = torch.randint(0, 256, (_BATCH, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = noise.to(bundle.device)

    @torch.inference_mode()
    def compute(count: int) -> None:
        split_outputs(bundle.model(images[:count]))[0].cpu()  # waits for a GPU

    alone = _clock(lambda: compute(1))
    told = f"{1000 * alone:.1f} ms for one picture"
    if alone <= _SLOW:
        told += f", {1000 * _clock(lambda: compute(_BATCH)) / _BATCH:.1f} ms for each of a batch of {_BATCH}"
    return f"{told} (medians; the model alone, without decoding, on the device of a rank)"


def _clock(run: Callable[[], None]) -> float:
    """Return the median seconds of several runs after a first one."""
    run()
    taken: list[float] = []
    while len(taken) < _LEAST or (sum(taken) < _SECONDS and len(taken) < _MOST):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def list_costs(run: Finished) -> dict[str, str]:
    """Return the model's size and its latency measured at the end of the run, in words."""
    parameters = sum(parameter.numel() for parameter in run.bundle.model.parameters())
    file = (run.folder / "bundle" / WEIGHTS).stat().st_size
    unknown = f"not measured; use `python -m trainer.bench {run.folder / 'bundle'}`"
    recipe = run.recipe
    return {
        "network": f"{recipe.model}, {recipe.image_size} pixels",
        "size": f"{parameters / 1e6:,.2f} M parameters, {format_size(file)} on disk",
        "latency": run.environment.get(LATENCY, unknown),
    }
