"""Antialiased resizing of training pictures on torch's fast paths."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_LANES = 4
"""Number of channels that torch's fast uint8 kernel needs; it does not support one channel."""


def resize(image: Tensor, size: int, mode: str) -> Tensor:
    """Return uint8[C, size, size] of uint8[C, H, W], antialiased, C in {1, 3}.

    Three channels give exactly torchvision's resize. One channel with bilinear may differ by 1, but takes half the time
    (tests/bench/README.md): columns are processed as channels.

    mode: bilinear or bicubic.
    """
    if image.is_cuda:  # torch resizes uint8 only on the CPU: torchvision converts to float32 and rounds
        return transforms.resize(image, [size, size], InterpolationMode(mode), antialias=True)
    if image.shape[0] == 1 and mode == "bilinear" and size % _LANES == 0 and min(image.shape[1:]) >= _LANES:
        return _resize_one(image[0], size)[None]
    packed = image[None].contiguous(memory_format=torch.channels_last)
    resized: Tensor = interpolate(packed, (size, size), mode=mode, antialias=True)[0]
    return resized


def resize_fraction(image: Tensor, place: tuple[float, float, float, float], size: int, mode: str) -> Tensor:
    """Return uint8[C, size, size] of a box in uint8[C, H, W], C in {1, 3}, with fractional coordinates.

    Torch does not support such a box; Pillow does, and its antialiased filter is within 2 of torch's.

    place: left, top, right and bottom, pixels.
    """
    pixels = image.permute(1, 2, 0).numpy()
    picture = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if image.shape[0] == 1 else pixels))
    resized = np.array(picture.resize((size, size), _FILTERS[mode], box=place))
    return torch.from_numpy(resized if resized.ndim == 3 else resized[:, :, None]).permute(2, 0, 1)


def _resize_one(image: Tensor, size: int) -> Tensor:
    """Return uint8[size, size] of uint8[H, W]: the rows first, then the columns as rows."""
    high = _resize_rows(image, size)
    return _resize_rows(high.t(), size).t()


def _resize_rows(image: Tensor, size: int) -> Tensor:
    """Return uint8[size, W] of uint8[H, W]."""
    height, width = image.shape
    padded = -(-width // _LANES) * _LANES
    if padded != width:  # padding is cut off again and does not mix with columns
        image = torch.nn.functional.pad(image, (0, padded - width))
    columns = image.contiguous().reshape(height, padded // _LANES, _LANES).permute(2, 0, 1)[None]
    resized = interpolate(columns, (size, padded // _LANES), mode="bilinear", antialias=True)[0]
    return resized.permute(1, 2, 0).reshape(size, padded)[:, :width]
