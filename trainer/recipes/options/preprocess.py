"""Geometry of every picture."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainer.recipes.options.section import Section

Interpolation = Literal["bilinear", "bicubic"]


class PreprocessOptions(Section):
    """Geometry of every picture; mean and std come with the weights."""

    policy: Literal["stretch", "crop", "letterbox"] = "stretch"
    """How a picture is made square: stretch both sides, crop the centre, or letterbox with padding."""
    resize: int | None = Field(default=None, gt=0)
    """For policy crop: length of the shorter side before the crop, in pixels."""
    interpolation: Interpolation | None = None
    """Resampling filter, always antialiased; None: the weights' own, or bilinear if they have none."""
    channels: Literal[1, 3] = 3
    """1: luminance, repeated for a backbone with three input channels; 3: RGB."""
    gray_backbone: bool = False
    """With channels=1: give the backbone one input channel, with equivalent pretrained filters, instead of
    repeating the picture."""
    normalise: Literal["imagenet", "half", "none"] | None = None
    """Mean and std if the weights have none: imagenet; half, which gives x*2-1; none, pixels in 0..1. None: the
    weights' own, and none from scratch."""
