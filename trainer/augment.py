"""Random changes of training pictures, the same for every number of ranks and workers.

Each operation draws its parameters from a generator that is seeded by (seed, epoch, sample id), and changes
uint8[C, S, S] after geometry. Nothing draws from a process-wide generator, so threads cannot disturb it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

Operation = Callable[[Tensor, np.random.Generator], Tensor]

_AUGMENT = 2  # what the random stream is for; the plan uses 0 and 1


def augment(image: Tensor, policy: str, key: tuple[int, int, int]) -> Tensor:
    """Return uint8[C, S, S] changed by a policy; `key` is (seed, epoch, sample id)."""
    operations = POLICIES[policy]
    if not operations:
        return image
    seed, epoch, sample_id = key
    rng = np.random.default_rng((seed, epoch, _AUGMENT, sample_id))
    for operation in operations:
        image = operation(image, rng)
    return image.contiguous()


def flip(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Mirror left and right with probability 1/2."""
    return image.flip(2) if rng.random() < 0.5 else image


def turn(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Apply one of the eight symmetries of the square, each with probability 1/8."""
    quarter_turns, mirrored = divmod(int(rng.integers(8)), 2)
    image = torch.rot90(image, quarter_turns, (1, 2))
    return image.flip(2) if mirrored else image


def shift(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Rotate by up to 5 degrees, move by up to 5 % of the side and scale by 0.9 to 1.1."""
    angle, x, y, scale = rng.uniform((-5, -0.05, -0.05, 0.9), (5, 0.05, 0.05, 1.1)).tolist()
    side = image.shape[-1]
    return transforms.affine(
        image, angle, [round(x * side), round(y * side)], scale, [0.0, 0.0], InterpolationMode.BILINEAR
    )


def relight(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Change brightness and contrast by factors of 0.8 to 1.2."""
    brightness, contrast = rng.uniform(0.8, 1.2, 2).tolist()
    return transforms.adjust_contrast(transforms.adjust_brightness(image, brightness), contrast)


POLICIES: dict[str, tuple[Operation, ...]] = {
    "none": (),
    "flip": (flip,),
    "light": (flip, shift),
    "square": (turn,),
    "strong": (turn, shift, relight),
}
"""none; flip: mirror; light: mirror and small shifts; square: the eight symmetries, for pictures without an
upside; strong: all of square, small shifts, brightness and contrast."""
