"""The one door of albumentations: its policies, drawn per sample.

Importing this takes most of a second, so trainer.augment.policies does it at the first sample of such a policy.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # before the import, which otherwise asks the network for a newer version

import albumentations as A  # noqa: N812 (the name that its documentation uses)
import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.augment.seeding import OPERATIONS, SampleKey, make_numpy_rng, make_python_rng

Pixels = npt.NDArray[np.uint8]
Policy = Callable[[Tensor, SampleKey], Tensor]

cv2.setNumThreads(0)  # the feed's pool is the parallelism, as with torch; OpenCV has one setting for all threads


def seed_transforms(build: Callable[[], list[A.BasicTransform | A.BaseCompose]]) -> Policy:
    """Return what `build` builds, applied in order, as a policy that draws from each sample's key.

    Transforms keep their generators and last parameters in themselves, so each thread builds its own.
    """
    local = threading.local()

    def apply(image: Tensor, key: SampleKey) -> Tensor:
        if not hasattr(local, "compose"):
            local.compose = A.Compose(build())
        # Not set_random_seed: it gives every transform a generator of its own with the same seed, so that their
        # draws agree and two flips of probability 1/2 come both or not at all
        # (test_set_random_seed_still_makes_two_flips_agree).
        local.compose.set_random_state(make_numpy_rng(key, OPERATIONS), make_python_rng(key, OPERATIONS))
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        changed = local.compose(image=pixels)["image"]
        return torch.from_numpy(changed).permute(2, 0, 1)

    return apply


class Sharpness(A.ImageOnlyTransform):  # albumentations sharpens but does not soften by a factor
    """Blend with a smoothed picture: factor 0 is smooth, 1 the original, 2 sharp; edges stay.

    Source: PIL.ImageEnhance.Sharpness and PIL.ImageFilter.SMOOTH.
    """

    _KERNEL = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], dtype=np.float32) / 13

    def __init__(self, factors: tuple[float, float], p: float = 0.5) -> None:
        super().__init__(p=p)
        self.factors = factors

    def get_params(self) -> dict[str, Any]:
        return {"factor": self.py_random.uniform(*self.factors)}

    def apply(self, img: Pixels, factor: float, **_: Any) -> Pixels:
        smooth = img.copy()
        inside = (slice(1, -1), slice(1, -1))
        smooth[inside] = cv2.filter2D(img, -1, self._KERNEL).reshape(img.shape)[inside]
        return cv2.addWeighted(img, factor, smooth, 1 - factor, 0).reshape(img.shape).astype(np.uint8, copy=False)


def build_photometric() -> list[A.BasicTransform | A.BaseCompose]:
    """Return brightness, contrast, colour, sharpness, rotation and noise, each with p = 1/2, in random order.

    Factors are 0.5 to 1.5, angles -30 to 30 degrees with black corners, the noise's sigma 0 to 10 of 255.
    One channel has no colour to change; all else is the same for it.
    """
    still, factors = (1.0, 1.0), (0.5, 1.5)

    def jitter(**changed: tuple[float, float]) -> A.ColorJitter:
        options = {"brightness": still, "contrast": still, "saturation": still, "hue": (0.0, 0.0), **changed}
        return A.ColorJitter(**options, p=0.5)

    operations = [
        jitter(brightness=factors),
        jitter(contrast=factors),
        jitter(saturation=factors),
        Sharpness(factors, p=0.5),
        A.Rotate(limit=30, interpolation=cv2.INTER_LINEAR, border_mode=cv2.BORDER_CONSTANT, fill=0, p=0.5),
        # OpenCV draws it with a generator of the calling thread, seeded with one of 65,536 draws of ours each time.
        A.GaussNoise(std_range=(0, 10 / 255), p=0.5),
    ]
    return [A.RandomOrder(operations, n=len(operations))]


POLICIES: dict[str, Policy] = {"photometric": seed_transforms(build_photometric)}
