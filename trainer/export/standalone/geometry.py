"""Geometry: uint8[H, W, 3] -> uint8[C, S, S]."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainer.export.standalone.decode import Bytes

Floats = npt.NDArray[np.float64]


def shrink(pixels: Bytes, max_side: int | None) -> Bytes:
    """Return the picture with neither side above `max_side`, as `pack --max-side` shrinks."""
    if max_side is None or max(pixels.shape) <= max_side:
        return pixels
    height, width = (max(1, round(side * (max_side / max(pixels.shape)))) for side in pixels.shape[:2])
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return np.array(image)


def fit(pixels: Bytes, spec: dict[str, Any]) -> Bytes:
    """Return uint8[C, S, S]; `spec` is `preprocess` of the metadata."""
    size, kind = spec["size"], spec["interpolation"]
    if spec["channels"] == 1:
        pixels = _take_luminance(pixels, spec.get("luminance", 1))
    if spec["policy"] == "stretch":
        fitted = resize(pixels, size, size, kind)
    elif spec["policy"] == "crop":
        most = 32 * min(pixels.shape[:2])
        top, left = (max(0, side - most) // 2 for side in pixels.shape[:2])
        pixels = pixels[top : pixels.shape[0] - top, left : pixels.shape[1] - left]
        old, new = min(pixels.shape[:2]), max(spec["resize"] or size, size)
        down = spec["rounding"] == "down"
        sides = [max(new, new * side // old if down else round(side * (new / old))) for side in pixels.shape[:2]]
        top, left = (round((side - size) / 2) for side in sides)
        fitted = resize(pixels, sides[0], sides[1], kind)[top : top + size, left : left + size]
    else:
        sides = [max(1, round(side * (size / max(pixels.shape[:2])))) for side in pixels.shape[:2]]
        top, left = ((size - side) // 2 for side in sides)
        fitted = np.full((size, size, pixels.shape[2]), spec["fill"], np.uint8)
        fitted[top : top + sides[0], left : left + sides[1]] = resize(pixels, sides[0], sides[1], kind)
    return np.ascontiguousarray(fitted.transpose(2, 0, 1))


def _take_luminance(pixels: Bytes, rule: int) -> Bytes:
    """Return uint8[H, W, 1] by a version of the rule: 2 rounds, 1 truncates."""
    if rule == 2:
        weighted = pixels.astype(np.int64) @ np.array([19595, 38470, 7471])
        return ((weighted + 32768) >> 16).astype(np.uint8)[:, :, None]
    red, green, blue = (pixels[:, :, channel].astype(np.float32) for channel in range(3))
    luminance = red * np.float32(0.2989) + green * np.float32(0.587) + blue * np.float32(0.114)
    return luminance.astype(np.uint8)[:, :, None]


def resize(pixels: Bytes, height: int, width: int, kind: str) -> Bytes:
    """Return uint8[height, width, C], antialiased, bit for bit as torch does on a CPU with AVX2 or on ARM.

    Pillow's own resize differs by up to 2 of 255, and bicubic by up to 28 if it resizes columns before rows.
    """
    if width != pixels.shape[1]:
        pixels = _resize_rows(pixels.swapaxes(0, 1), width, kind).swapaxes(0, 1)
    return pixels if height == pixels.shape[0] else _resize_rows(pixels, height, kind)


def _resize_rows(pixels: Bytes, new: int, kind: str) -> Bytes:
    firsts, weights = _weigh(pixels.shape[0], new, kind)
    largest, bits = max(each.max() for each in weights), 0
    while bits < 22 and int(0.5 + largest * 2 ** (bits + 1)) < 2**15:  # weights are stored as 16-bit integers
        bits += 1
    rows = np.empty((new, *pixels.shape[1:]), np.uint8)
    for number, (first, each) in enumerate(zip(firsts, weights, strict=True)):
        whole = np.trunc(each * 2**bits + np.where(each < 0, -0.5, 0.5))
        total = np.tensordot(whole, pixels[first : first + len(each)].astype(np.float64), 1)
        rows[number] = np.clip(np.floor((total + 2 ** (bits - 1)) / 2**bits), 0, 255)
    return rows


def _weigh(old: int, new: int, kind: str) -> tuple[list[int], list[Floats]]:
    """Return for each new row the first old row that contributes, and the weights from there on, which sum to 1."""
    kernel, radius = {"bilinear": (_triangle, 1), "bicubic": (_cubic, 2)}[kind]
    scale, firsts, weights = old / new, [], []
    wide = max(scale, 1.0)
    for row in range(new):
        centre, reach = scale * (row + 0.5), radius * wide
        first, last = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), old)
        count = min(last - first, 2 * math.ceil(reach) + 1)
        each = kernel(np.abs((np.arange(count) + first - centre + 0.5) * (1 / wide)))
        firsts.append(first)
        weights.append(each / np.add.accumulate(each)[-1])
    return firsts, weights


def _triangle(far: Floats) -> Floats:
    return np.clip(1 - far, 0, None)


def _cubic(far: Floats) -> Floats:
    outer = np.where(far < 2, (((far - 5) * far + 8) * far - 4) * -0.5, 0.0)
    return np.where(far < 1, (1.5 * far - 2.5) * far * far + 1, outer)
