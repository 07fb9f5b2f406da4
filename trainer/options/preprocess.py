"""Geometry of every picture."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainer.options.section import Section


class PreprocessOptions(Section):
    """Geometry of every picture; mean and std are not here, because the weights know them."""

    policy: Literal["stretch", "crop", "letterbox"] = "stretch"
    """stretch both sides, crop the centre, or letterbox with padding."""
    resize: int | None = Field(default=None, gt=0)
    """crop only: shorter side before the crop, pixels."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Always antialiased."""
    channels: Literal[1, 3] = 3
    """1 feeds luminance; a backbone of three channels repeats it."""
