"""The forward pass of one batch, in which no picture can spoil the answer of another."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.contract.bundle import Bundle, Output

logger = logging.getLogger(__name__)


def compute_each(bundle: Bundle, images: Sequence[Tensor]) -> list[Output | Exception]:
    """Return what the model says, or the exception, for each of images uint8[C, S, S].

    A batch that fails is halved until the ones that fail stand alone: Ray Serve would otherwise hand one
    exception to every request of the batch. It also gets a batch through that is too large for the memory.
    """
    try:
        return [*bundle.compute(torch.stack(list(images)))]
    except Exception as err:  # whatever it was, its request gets it
        if len(images) == 1:
            return [err]
        logger.warning("a batch of %d failed and is halved: %s", len(images), err)
    half = len(images) // 2
    return compute_each(bundle, images[:half]) + compute_each(bundle, images[half:])
