"""The forward pass of one batch, in which a bad picture cannot spoil the answers for others."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.contract.bundle import Bundle, Output

logger = logging.getLogger(__name__)


def compute_each(bundle: Bundle, images: Sequence[Tensor]) -> list[Output | Exception]:
    """Return the model's output, or the exception, for each of images uint8[C, S, S].

    A batch that fails is halved until the failing pictures are alone: Ray Serve would otherwise pass one exception to
    every request of the batch. Halving also helps if a batch is too large for the memory.
    """
    try:
        return [*bundle.compute(torch.stack(list(images)))]
    except Exception as err:  # any error is passed on to its request
        if len(images) == 1:
            return [err]
        logger.warning("a batch of %d failed and is halved: %s", len(images), err)
    half = len(images) // 2
    return compute_each(bundle, images[:half]) + compute_each(bundle, images[half:])
