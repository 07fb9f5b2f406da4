"""Geometry of evaluation and serving: uint8[H, W, 3] -> uint8[C, S, S]. Normalisation lives in the model."""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from shards.pictures.decode import DecodeOptions, decode

Policy = Literal["stretch", "crop", "letterbox"]

_MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}

_LUMINANCE: Final = (19595, 38470, 7471)
"""Weights of red, green and blue in 65536ths. Source: Pillow's convert("L")."""
LONGEST: Final = 32
"""Policy crop first cuts the longer side to this multiple of the shorter one."""


class PreprocessSpec(BaseModel):
    """All that happens to a picture between its bytes and the model's input."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(gt=0)
    """Side of the model's square input, pixels."""
    policy: Policy = "stretch"
    """stretch: both sides to `size`. crop: shorter side to `resize`, centre square. letterbox: longer side, padded."""
    resize: int | None = Field(default=None, gt=0)
    """crop only: length of the shorter side before the crop, pixels; None means `size`."""
    rounding: Literal["nearest", "down"] = "nearest"
    """crop only: rounding of the longer side after the resize; torchvision and timm round down."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Always antialiased."""
    channels: Literal[1, 3] = 3
    """1 gives luminance (ITU-R 601-2)."""
    luminance: Literal[1, 2] = 1
    """1 channel only: version of the luminance rule. 1: truncated, so that 255 becomes 254, for bundles without this
    field. 2: rounded, as Pillow does."""
    fill: int = Field(default=0, ge=0, le=255)
    """letterbox only: value of the padding."""
    decode: DecodeOptions = DecodeOptions()
    max_side: int | None = Field(default=None, gt=0)
    """Maximum length of the longer side: larger pictures are first shrunk to it, as in the dataset; None: no limit."""

    @model_serializer(mode="wrap")
    def _leave_out_the_first(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit fields with their first default: earlier versions and fingerprints do not know them."""
        values: dict[str, Any] = write(self)
        if self.luminance == 1:
            values.pop("luminance", None)
        return values

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, S, S) of the model's input."""
        return self.channels, self.size, self.size


def prepare(data: bytes, spec: PreprocessSpec) -> Tensor:
    """Return uint8[C, S, S] of an encoded picture.

    Raises:
        DecodeError: The bytes are not one complete picture.
    """
    return prepare_pixels(decode(data, spec.decode), spec)


def prepare_pixels(pixels: npt.NDArray[np.uint8], spec: PreprocessSpec) -> Tensor:
    """Return uint8[C, S, S] of a decoded picture uint8[H, W, 3], as `prepare` does."""
    if spec.max_side is not None:
        from shards.pictures.shrink import shrink_pixels  # late: most datasets keep the size of their pictures

        pixels = shrink_pixels(pixels, spec.max_side)
    return apply_geometry(pixels, spec)


def apply_geometry(pixels: npt.NDArray[np.uint8], spec: PreprocessSpec) -> Tensor:
    """Return uint8[C, S, S] of decoded pixels uint8[H, W, 3]."""
    return fit(torch.from_numpy(pixels).permute(2, 0, 1), spec)


def fit(image: Tensor, spec: PreprocessSpec) -> Tensor:
    """Return uint8[C, S, S] of a decoded picture uint8[3, H, W]."""
    if spec.channels == 1:
        image = take_luminance(image, spec.luminance)
    height, width = image.shape[1:]
    if spec.policy == "stretch":
        return _resize(image, spec.size, spec.size, spec)
    if spec.policy == "crop":
        image = keep_centre(image)
        height, width = image.shape[1:]
        shorter = max(spec.resize or spec.size, spec.size)
        new_height, new_width = (_scale(side, shorter, min(height, width), spec) for side in (height, width))
        image = _resize(image, new_height, new_width, spec)
        return transforms.center_crop(image, [spec.size, spec.size]).contiguous()
    scale = spec.size / max(height, width)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (spec.size - new_height) // 2, (spec.size - new_width) // 2
    padding = [left, top, spec.size - new_width - left, spec.size - new_height - top]
    return transforms.pad(_resize(image, new_height, new_width, spec), padding, fill=spec.fill).contiguous()


def take_luminance(image: Tensor, rule: Literal[1, 2]) -> Tensor:
    """Return [..., 1, H, W] of the same type for a picture [..., 3, H, W] in 0..255, by a version of the rule.

    A picture with one channel is returned unchanged.

    >>> white = torch.full((3, 1, 1), 255, dtype=torch.uint8)
    >>> take_luminance(white, 1).item(), take_luminance(white, 2).item()
    (254, 255)
    """
    if image.shape[-3] == 1:
        return image
    if rule == 1:
        gray: Tensor = transforms.rgb_to_grayscale(image)
        return gray
    whole = image.dtype == torch.uint8
    bands = image.int() if whole else image
    red, green, blue = (weight * bands[..., [band], :, :] for band, weight in enumerate(_LUMINANCE))
    total = red + green + blue
    # Integer arithmetic for bytes, so that all devices and programs agree; the weights sum to 65536.
    return ((total + 32768) >> 16).to(torch.uint8) if whole else total / 65536


def keep_centre(image: Tensor) -> Tensor:
    """Return uint8[C, H, W] without the ends of a side that is more than 32 times the other.

    The centre square has nothing of these ends, but resizing them takes gigabytes: 1x65000 pixels of a small file
    become 224x14560000.
    """
    height, width = image.shape[1:]
    most = LONGEST * min(height, width)
    # Equally at both ends, so that the centre stays the same.
    top, left = (max(0, side - most) // 2 for side in (height, width))
    return image[:, top : height - top, left : width - left]


def _scale(side: int, new: int, old: int, spec: PreprocessSpec) -> int:
    """Return the new length of `side` when the shorter side is resized from `old` to `new`."""
    return max(new, new * side // old if spec.rounding == "down" else round(side * (new / old)))


def _resize(image: Tensor, height: int, width: int, spec: PreprocessSpec) -> Tensor:
    resized: Tensor = transforms.resize(image, [height, width], _MODES[spec.interpolation], antialias=True)
    return resized.contiguous()
