"""torchvision's v2 transforms, drawn per sample: its published policies, and its operations by name.

All policies also work for one channel: operations on colour alone then change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms

from shards.order.purposes import Purpose
from trainer.feed.augment.library import Change, Library, Policy
from trainer.feed.augment.seeding import SampleKey, make_torch_rng
from trainer.feed.augment.torch_random import DrawFrom


def seed_transform(transform: Callable[[Tensor], Any], purpose: int = Purpose.OPERATIONS) -> Change:
    """Return `transform`, a v2 transform without state, as a change that draws from each sample's key."""

    def apply(image: Tensor, key: SampleKey) -> Tensor:
        with DrawFrom(make_torch_rng(key, purpose)):
            changed: Tensor = transform(image)
        return changed

    return apply


def seed_operations(build: Callable[[], list[Any]], purpose: int) -> Change:
    """Return v2 transforms, applied in order, as one change; they are stateless, so all threads share them."""
    transform = seed_transform(v2.Compose(build()), purpose)
    # torch fills noise in memory order, but geometry returns whatever layout was cheapest.
    return lambda image, key: transform(image.contiguous(), key)


class _Apart:
    """Apply pixel operations outside the DrawFrom block: they draw nothing, and the block adds 2 microseconds per call.

    With it, seeding takes 4 % of a sample's time for augmix instead of 10 % (tests/bench/reseed.py). If torchvision
    renames the method, the pixels stay the same and the policy only becomes slower.
    """

    def _apply_image_or_video_transform(self, *args: Any, **kwargs: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return super()._apply_image_or_video_transform(*args, **kwargs)  # type: ignore[misc]


class _AutoAugment(_Apart, v2.AutoAugment): ...


class _RandAugment(_Apart, v2.RandAugment): ...


class _TrivialAugment(_Apart, v2.TrivialAugmentWide): ...


class _AugMix(_Apart, v2.AugMix): ...


class _Between(v2.Transform):
    """Apply a function with a factor drawn uniformly from a range."""

    def __init__(self, function: Callable[[Tensor, float], Tensor], least: float, most: float) -> None:
        super().__init__()
        self._function, self._least, self._most = function, least, most

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:  # noqa: ARG002 (its name is torchvision's)
        return {"factor": torch.empty(()).uniform_(self._least, self._most).item()}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        return self._function(inpt, params["factor"])


_BILINEAR = v2.InterpolationMode.BILINEAR  # as in torchvision's training reference; most classes default to nearest


def compose_photometric() -> v2.Transform:
    """Return brightness, contrast, colour, sharpness, rotation and noise, each with p = 1/2, in random order.

    Factors are 0.5 to 1.5, angles -30 to 30 degrees with black corners, the noise's sigma 0 to 10 of 255.
    """
    operations = [
        _Between(transforms.adjust_brightness, 0.5, 1.5),
        _Between(transforms.adjust_contrast, 0.5, 1.5),
        _Between(transforms.adjust_saturation, 0.5, 1.5),
        _Between(transforms.adjust_sharpness, 0.5, 1.5),
        v2.RandomRotation(30, interpolation=_BILINEAR),
        _Between(lambda image, sigma: transforms.gaussian_noise(image, 0.0, sigma), 0.0, 10 / 255),
    ]
    return v2.RandomOrder([v2.RandomApply([operation], p=0.5) for operation in operations])


# builders of policies; the published ones are torchvision's, with its default parameters


def build_photometric() -> Policy:
    return Policy(after=seed_operations(lambda: [compose_photometric()], Purpose.OPERATIONS))


def build_autoaugment() -> Policy:
    return Policy(after=seed_transform(_AutoAugment(interpolation=_BILINEAR)))


def build_manual() -> Policy:
    return Policy(before=seed_transform(_AutoAugment(interpolation=_BILINEAR), Purpose.BEFORE))


def build_randaugment() -> Policy:
    return Policy(after=seed_transform(_RandAugment(interpolation=_BILINEAR)))


def build_trivialaugment() -> Policy:
    return Policy(after=seed_transform(_TrivialAugment(interpolation=_BILINEAR)))


def build_augmix() -> Policy:
    return Policy(after=seed_transform(_AugMix(interpolation=_BILINEAR)))


# operations by name

_DTYPE = "pictures must stay uint8; the model normalises them"
_LABELS = "it needs boxes, points or a batch, which a training picture lacks"

REFUSED = {
    "MixUp": "it mixes a batch; set augment.mixup",
    "CutMix": "it mixes a batch; set augment.cutmix",
    **dict.fromkeys(("Normalize", "ToDtype", "ConvertImageDtype", "ToTensor", "ToPILImage", "PILToTensor"), _DTYPE),
    **dict.fromkeys(("RandomIoUCrop", "SanitizeBoundingBoxes", "SanitizeKeyPoints", "ClampBoundingBoxes"), _LABELS),
    **dict.fromkeys(("ClampKeyPoints", "ConvertBoundingBoxFormat", "SetClampingMode"), _LABELS),
    "UniformTemporalSubsample": "it is for videos",
    "Lambda": "a recipe cannot contain a function",
    **dict.fromkeys(("FiveCrop", "TenCrop"), "it makes several pictures from one"),
}


def _adapt(name: str, value: Any) -> Any:
    if isinstance(value, str) and name == "interpolation":
        return _look_up(v2.InterpolationMode, value)
    if isinstance(value, str) and name == "policy":
        return _look_up(v2.AutoAugmentPolicy, value)
    return value


def _look_up(names: Any, value: str) -> Any:
    """Return the member of an enumeration with this value."""
    words = [member.value for member in names]
    if value not in words:
        raise ValueError(f"must be one of {', '.join(words)}")
    return names(value)


_APART: dict[str, type] = {
    "AutoAugment": _AutoAugment,
    "RandAugment": _RandAugment,
    "TrivialAugmentWide": _TrivialAugment,
    "AugMix": _AugMix,
}

LIBRARY = Library(
    name="torchvision",
    kinds={
        name: _APART.get(name, kind)
        for name, kind in vars(v2).items()
        if isinstance(kind, type) and issubclass(kind, v2.Transform) and name != "Transform" and name not in REFUSED
    },
    refused=REFUSED,
    adapt=_adapt,
    seed=seed_operations,
    disturb=lambda _number: None,
)
