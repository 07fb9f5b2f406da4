"""The published policies of torchvision's v2 transforms, drawn per sample.

All take one channel as well: what changes colour alone then changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from trainer.augment.seeding import OPERATIONS, SampleKey, make_torch_rng
from trainer.augment.torch_random import DrawFrom

Policy = Callable[[Tensor, SampleKey], Tensor]


def seed_transform(transform: Callable[[Tensor], Any]) -> Policy:
    """Return `transform`, a v2 transform without state, as a policy that draws from each sample's key."""

    def apply(image: Tensor, key: SampleKey) -> Tensor:
        with DrawFrom(make_torch_rng(key, OPERATIONS)):
            changed: Tensor = transform(image)
        return changed

    return apply


class _Apart:
    """Turns pixels outside the block that draws: that part draws nothing, and each call seen costs 2 microseconds.

    With it augmix's seeding is 4 % of a sample's work instead of 10 % (tests/bench/reseed.py). Should torchvision
    rename the method, the pixels stay the same and the policy only gets slower.
    """

    def _apply_image_or_video_transform(self, *args: Any, **kwargs: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return super()._apply_image_or_video_transform(*args, **kwargs)  # type: ignore[misc]


class _AutoAugment(_Apart, v2.AutoAugment): ...


class _RandAugment(_Apart, v2.RandAugment): ...


class _TrivialAugment(_Apart, v2.TrivialAugmentWide): ...


class _AugMix(_Apart, v2.AugMix): ...


_BILINEAR = v2.InterpolationMode.BILINEAR  # as torchvision's own training reference; most classes default to nearest

POLICIES: dict[str, Policy] = {
    "autoaugment": seed_transform(_AutoAugment(interpolation=_BILINEAR)),
    "randaugment": seed_transform(_RandAugment(interpolation=_BILINEAR)),
    "trivialaugment": seed_transform(_TrivialAugment(interpolation=_BILINEAR)),
    "augmix": seed_transform(_AugMix(interpolation=_BILINEAR)),
}
"""autoaugment: what was learnt on ImageNet; randaugment: 2 operations of magnitude 9 of 30; trivialaugment: 1 of any
magnitude, wide; augmix: 3 mixed chains of 1 to 3, severity 3."""
