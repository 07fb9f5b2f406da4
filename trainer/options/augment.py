"""Random changes of training pictures."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from trainer.options.section import Section

POLICY_NAMES = (
    "none", "flip", "light", "square", "strong", "autoaugment", "randaugment", "trivialaugment", "augmix",
    "photometric",
)  # fmt: skip
"""What trainer.augment.policies makes of them stands there: a recipe is read without torch."""


class AugmentOptions(Section):
    """Random changes of training pictures."""

    crop: Literal["none", "random"] = "none"
    """random takes a random part of the picture and stretches it to the input, in the place of the geometry of
    evaluation (Inception's crop, torchvision's RandomResizedCrop)."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Share of the picture's area that the part has, least and most."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width by height of the part, least and most."""
    policy: str = "none"
    """One of POLICY_NAMES."""

    @field_validator("crop_scale", "crop_ratio")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("the least comes first and is above 0")
        return value

    @field_validator("crop_scale")
    @classmethod
    def _at_most_all(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[1] > 1:
            raise ValueError("a part is at most the whole, 1")
        return value

    @field_validator("policy")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in POLICY_NAMES:
            raise ValueError(f"the policies are {', '.join(POLICY_NAMES)}")
        return value
