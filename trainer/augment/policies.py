"""Random changes of training pictures, the same for every number of ranks, workers and threads.

A policy changes uint8[C, S, S] after geometry, with C of 1 or 3, and draws from generators that the sample's key
seeds. Nothing draws from a process-wide generator, so threads cannot disturb each other.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from trainer.augment import torchvision_policies
from trainer.augment.seeding import OPERATIONS, SampleKey, make_numpy_rng

Operation = Callable[[Tensor, np.random.Generator], Tensor]
Policy = Callable[[Tensor, SampleKey], Tensor]


def augment(image: Tensor, policy: str, key: SampleKey | tuple[int, int, int]) -> Tensor:
    """Return uint8[C, S, S] of any strides, changed by a policy of POLICIES; a tuple is (seed, epoch, sample id)."""
    return POLICIES[policy](image, SampleKey(*key))


def chain(*operations: Operation) -> Policy:
    """Return operations of our own as a policy: one after the other, all from one generator."""

    def apply(image: Tensor, key: SampleKey) -> Tensor:
        rng = make_numpy_rng(key, OPERATIONS)
        for operation in operations:
            image = operation(image, rng)
        return image

    return apply


def leave(image: Tensor, _key: SampleKey) -> Tensor:
    """Return the picture as it is."""
    return image


def photometric(image: Tensor, key: SampleKey) -> Tensor:
    """Brightness, contrast, colour, sharpness, rotation and noise; see albumentations_policies."""
    # late: importing albumentations takes most of a second, and a recipe that only names the policy needs none of it
    from trainer.augment import albumentations_policies

    return albumentations_policies.POLICIES["photometric"](image, key)


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


POLICIES: dict[str, Policy] = {
    "none": leave,
    "flip": chain(flip),
    "light": chain(flip, shift),
    "square": chain(turn),
    "strong": chain(turn, shift, relight),
    **torchvision_policies.POLICIES,
    "photometric": photometric,
}
"""none; flip: mirror; light: mirror and small shifts; square: the eight symmetries, for pictures without an
upside; strong: all of square, small shifts, brightness and contrast; autoaugment, randaugment, trivialaugment and
augmix as torchvision has them; photometric: light, colour, sharpness, rotation by up to 30 degrees and noise."""
