"""albumentations: policies made of its operations, drawn per sample, and its operations by name.

The only module that imports albumentations. The import takes most of a second, so `policies` does it on demand.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # before the import, which otherwise checks for updates over the network

import albumentations as A  # noqa: N812 (the name that its documentation uses)
import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shards.order.purposes import Purpose
from trainer.feed.augment.library import Change, Library, Policy
from trainer.feed.augment.operations import SHIFTED, find_reach
from trainer.feed.augment.seeding import SampleKey, make_numpy_rng, make_python_rng

Pixels = npt.NDArray[np.uint8]
Operations = list[A.BasicTransform | A.BaseCompose]

cv2.setNumThreads(0)  # the feed's pool is the parallelism, as with torch; the setting is process-wide


def seed_transforms(build: Callable[[], Operations], purpose: int = Purpose.OPERATIONS) -> Change:
    """Return the operations from `build`, applied in order, as a change that draws from each sample's key.

    Transforms store their generators and last parameters, so each thread builds its own.
    """
    local = threading.local()

    def apply(image: Tensor, key: SampleKey) -> Tensor:
        if not hasattr(local, "compose"):
            local.compose = A.Compose(build())
            # Not set_random_seed: it seeds the generator of every transform equally, so that their draws agree, and two
            # flips of probability 1/2 happen both or not at all
            # (test_set_random_seed_still_makes_two_flips_agree).
        local.compose.set_random_state(make_numpy_rng(key, purpose), make_python_rng(key, purpose))
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        changed = np.ascontiguousarray(local.compose(image=pixels)["image"])
        return torch.from_numpy(changed if changed.ndim == 3 else changed[..., None]).permute(2, 0, 1)

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


def _flip() -> Operations:
    """Return a horizontal flip with p = 1/2."""
    return [A.HorizontalFlip(p=0.5)]


def _square() -> Operations:
    """Return the eight symmetries of the square, all equally likely."""
    return [A.D4(p=1)]


class Shift(A.ImageOnlyTransform):  # albumentations only shifts with interpolation
    """Shift by whole pixels with a reflected border, like `trainer.feed.augment.operations.shift`."""

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        reaches = [find_reach(side) for side in params["shape"][:2]]
        down, right = (self.py_random.randint(-reach, reach) for reach in reaches)
        return {"down": down, "right": right, "reaches": reaches}

    def apply(self, img: Pixels, down: int, right: int, reaches: list[int], **_: Any) -> Pixels:
        (height, width), (top, left) = img.shape[:2], reaches
        wide = cv2.copyMakeBorder(img, top, top, left, left, cv2.BORDER_REFLECT_101)
        moved = wide[top - down : top - down + height, left - right : left - right + width]
        return moved.reshape(img.shape).astype(np.uint8, copy=False)


def _shift() -> Operations:
    """Return a shift by up to 5 % of the side, with p = 1/2."""
    return [Shift(p=SHIFTED)]


def _relight() -> Operations:
    """Return brightness and contrast by factors of 0.8 to 1.2."""
    return [_jitter(1, brightness=(0.8, 1.2)), _jitter(1, contrast=(0.8, 1.2))]


def _jitter(p: float, **changed: tuple[float, float]) -> A.ColorJitter:
    still = (1.0, 1.0)
    options = {"brightness": still, "contrast": still, "saturation": still, "hue": (0.0, 0.0), **changed}
    return A.ColorJitter(**options, p=p)


def compose_photometric() -> Operations:
    """Return brightness, contrast, colour, sharpness, rotation and noise, each with p = 1/2, in random order.

    Factors are 0.5 to 1.5, angles -30 to 30 degrees with black corners, the noise's sigma 0 to 10 of 255.
    One channel has no colour to change; everything else also applies to it.
    """
    factors = (0.5, 1.5)
    operations = [
        _jitter(0.5, brightness=factors),
        _jitter(0.5, contrast=factors),
        _jitter(0.5, saturation=factors),
        Sharpness(factors, p=0.5),
        A.Rotate(limit=30, interpolation=cv2.INTER_LINEAR, border_mode=cv2.BORDER_CONSTANT, fill=0, p=0.5),
        # OpenCV draws the noise from a generator per thread, seeded each time with one of 65,536 values of ours.
        A.GaussNoise(std_range=(0, 10 / 255), p=0.5),
    ]
    return [A.RandomOrder(operations, n=len(operations))]


# builders of policies


def build_flip() -> Policy:
    return Policy(after=seed_transforms(_flip))


def build_light() -> Policy:
    return Policy(after=seed_transforms(lambda: [*_flip(), *_shift()]))


def build_square() -> Policy:
    return Policy(after=seed_transforms(_square))


def build_strong() -> Policy:
    return Policy(after=seed_transforms(lambda: [*_square(), *_shift(), *_relight()]))


def build_photometric() -> Policy:
    return Policy(after=seed_transforms(compose_photometric))


# operations by name

_DTYPE = "pictures must stay uint8[H, W, C]; the model normalises them"
_BASES = ("BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D", "BaseCompose", "Compose")

REFUSED = {
    **dict.fromkeys(("Normalize", "ToFloat", "FromFloat", "ToTensorV2", "ToTensor3D"), _DTYPE),
    "Lambda": "a recipe cannot contain a function",
    "ReplayCompose": "list its operations one after the other, or use Sequential",
    "Compose": "list its operations one after the other, or use Sequential",
}
_WORDS = {
    "interpolation": {
        "nearest": cv2.INTER_NEAREST,
        "bilinear": cv2.INTER_LINEAR,
        "bicubic": cv2.INTER_CUBIC,
        "area": cv2.INTER_AREA,
        "lanczos": cv2.INTER_LANCZOS4,
    },
    "border_mode": {
        "constant": cv2.BORDER_CONSTANT,
        "replicate": cv2.BORDER_REPLICATE,
        "reflect": cv2.BORDER_REFLECT,
        "wrap": cv2.BORDER_WRAP,
        "reflect_101": cv2.BORDER_REFLECT_101,
    },
}


def _adapt(name: str, value: Any) -> Any:
    """Convert lists to tuples, and words to OpenCV's constants."""
    if isinstance(value, list):
        return tuple(_adapt(name, item) for item in value)
    words = _WORDS.get(name)
    if words is None or not isinstance(value, str):
        return value
    if value not in words:
        raise ValueError(f"must be one of {', '.join(words)}")
    return words[value]


LIBRARY = Library(
    name="albumentations",
    kinds={
        name: kind
        for name, kind in vars(A).items()
        if isinstance(kind, type)
        and issubclass(kind, A.BasicTransform | A.BaseCompose)
        and name not in _BASES
        and name not in REFUSED
    },
    refused=REFUSED,
    adapt=_adapt,
    seed=seed_transforms,
    disturb=cv2.setRNGSeed,
)
