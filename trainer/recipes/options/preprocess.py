"""Geometry of every picture."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainer.recipes.options.section import Section

Interpolation = Literal["bilinear", "bicubic"]


class PreprocessOptions(Section):
    """Geometry of every picture; mean and std are no numbers here, because the weights know them."""

    policy: Literal["stretch", "crop", "letterbox"] = "stretch"
    """stretch both sides, crop the centre, or letterbox with padding."""
    resize: int | None = Field(default=None, gt=0)
    """crop only: shorter side before the crop, pixels."""
    interpolation: Interpolation | None = None
    """Always antialiased; None is that of the weights, bilinear where they say nothing."""
    channels: Literal[1, 3] = 3
    """1 feeds luminance; a backbone of three channels repeats it."""
    gray_backbone: bool = False
    """With channels=1: the backbone takes one channel, not the picture repeated, and weights that answer the same."""
    normalise: Literal["imagenet", "half", "none"] | None = None
    """Mean and std where the weights say nothing: half is x*2-1, none is 0..1. None: the weights', none for scratch."""
