"""Our own operations on torchvision's functions, drawn from a sample's NumPy generator, and their policies."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from shards.order.purposes import Purpose
from trainer.feed.augment.library import Change, Policy
from trainer.feed.augment.seeding import SampleKey, make_numpy_rng

SHIFTED, REACH = 0.5, 0.05
"""Share of the pictures that are shifted, and the largest shift as a share of the side."""
_TRIES = 10
_AREA, _SHAPE = (0.02, 0.33), (0.3, 3.3)

Own = Callable[[Tensor, np.random.Generator], Tensor]


def chain(*operations: Own) -> Change:
    """Return a change that applies operations one after the other, all drawing from one generator."""

    def apply(image: Tensor, key: SampleKey) -> Tensor:
        rng = make_numpy_rng(key, Purpose.OPERATIONS)
        for operation in operations:
            image = operation(image, rng)
        return image

    return apply


def flip(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Flip horizontally with probability 1/2."""
    return image.flip(2) if rng.random() < 0.5 else image


def turn(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Apply one of the eight symmetries of the square, each with probability 1/8."""
    quarter_turns, mirrored = divmod(int(rng.integers(8)), 2)
    image = torch.rot90(image, quarter_turns, (1, 2))
    return image.flip(2) if mirrored else image


def shift(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Shift by whole pixels, up to 5 % of the side in each direction, with probability 1/2; the border is reflected.

    Nothing is interpolated, so that training pictures are as sharp as in evaluation, and half of them unshifted. In
    streams before version 2 (shards.order.purposes) every picture was rotated, scaled and shifted by bilinear
    interpolation onto black, which removed 27 to 31 % of its Laplacian energy.
    """
    if rng.random() >= SHIFTED:
        return image
    for dim in (1, 2):
        side = image.shape[dim]
        most = find_reach(side)
        places = (torch.arange(side) - int(rng.integers(-most, most, endpoint=True))).abs()
        image = image.index_select(dim, (side - 1 - (side - 1 - places).abs()).to(image.device))
    return image


def find_reach(side: int) -> int:
    """Return the largest shift of a picture with this side, in pixels.

    >>> find_reach(224), find_reach(32), find_reach(8)
    (11, 2, 0)
    """
    return round(REACH * side)


def relight(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Change brightness and contrast by factors of 0.8 to 1.2."""
    brightness, contrast = rng.uniform(0.8, 1.2, 2).tolist()
    return transforms.adjust_contrast(transforms.adjust_brightness(image, brightness), contrast)


def erase(probability: float) -> Change:
    """Return a change that fills a random box with noise, each pixel and channel drawn from 0 to 255.

    The box has 2 to 33 % of the area and an aspect ratio of 0.3 to 3.3.

    Source: Zhong et al. 2017, Random Erasing Data Augmentation; ranges from torchvision's RandomErasing.
    """

    def apply(image: Tensor, key: SampleKey) -> Tensor:
        rng = make_numpy_rng(key, Purpose.ERASE)
        if rng.random() >= probability:
            return image
        channels, height, width = image.shape
        top, left, height, width = _draw_erased(height, width, rng)
        erased = image.clone()
        noise = rng.integers(0, 256, (channels, height, width), dtype=np.uint8)
        erased[:, top : top + height, left : left + width] = torch.from_numpy(noise)
        return erased

    return apply


def _draw_erased(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Return top, left, height and width; an empty box if ten draws do not fit."""
    for _ in range(_TRIES):
        area = height * width * rng.uniform(*_AREA)
        shape = math.exp(rng.uniform(math.log(_SHAPE[0]), math.log(_SHAPE[1])))
        box_height, box_width = round(math.sqrt(area / shape)), round(math.sqrt(area * shape))
        if box_height <= height and box_width <= width:
            top, left = rng.integers((height - box_height + 1, width - box_width + 1)).tolist()
            return top, left, box_height, box_width
    return 0, 0, 0, 0


# builders of policies


def build_flip() -> Policy:
    return Policy(after=chain(flip))


def build_light() -> Policy:
    return Policy(after=chain(flip, shift))


def build_square() -> Policy:
    return Policy(after=chain(turn))


def build_strong() -> Policy:
    return Policy(after=chain(turn, shift, relight))
