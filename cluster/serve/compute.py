"""The forward pass of one batch, in which a bad picture cannot spoil the answers for others."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cluster.serve.models import Served
from cluster.serve.problem import ProblemError
from trainer.contract.bundle import Bundle, Output
from trainer.contract.preprocess import PreprocessSpec

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Job:
    """A picture uint8 or float32[C, S, S] that waits for the bundle that was chosen for it."""

    image: Tensor
    served: Served
    has_left: bool = field(default=False)
    """Whether nobody waits for the result any more."""


@dataclass(frozen=True)
class Result:
    """The model's output for a picture, or the exception that it caused; `model_s` is the time of its forward pass."""

    output: Output | Exception
    model_s: float


def compute_jobs(jobs: Sequence[Job]) -> list[Result]:
    """Return a result for each job, from one forward pass for each bundle and type of numbers among them."""
    results: dict[int, Result] = {}
    kinds = [(job.served, job.image.dtype) for job in jobs]
    for kind in set(kinds):
        served, places = kind[0], [place for place in range(len(jobs)) if kinds[place] == kind]
        began = time.perf_counter()
        outputs = compute_each(served.bundle, [jobs[place].image for place in places])
        seconds = time.perf_counter() - began
        for place, output in zip(places, outputs, strict=True):
            results[place] = Result(output, seconds)
    return [results[place] for place in range(len(jobs))]


def compute_each(bundle: Bundle, images: Sequence[Tensor]) -> list[Output | Exception]:
    """Return the model's output, or the exception, for each of images uint8 or float32[C, S, S].

    A batch that fails is halved until the failing pictures are alone, so that one exception does not reach every
    request of the batch. Halving also helps if a batch is too large for the memory.
    """
    try:
        return [*bundle.compute(torch.stack(list(images)))]
    except Exception as err:  # any error is passed on to its request
        if len(images) == 1:
            return [err]
        logger.warning("a batch of %d failed and is halved: %s", len(images), err)
    half = len(images) // 2
    return compute_each(bundle, images[:half]) + compute_each(bundle, images[half:])


def check_prepared(image: Tensor, spec: PreprocessSpec) -> Tensor:
    """Return a picture in the model's input layout as it is.

    Raises:
        ProblemError: It has another shape.
    """
    if image.shape == spec.shape:
        return image
    got, wanted = list(image.shape), list(spec.shape)
    raise ProblemError("invalid-request", f"the picture has shape {got}, but the model takes {wanted} (C, S, S)")
