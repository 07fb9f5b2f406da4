"""Blocks of a picture: the surroundings of the extremes of its band-pass, and their positions in a turned picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter, maximum_filter

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

SIDE = 256
"""Longer side in pixels at which blocks are found, reached approximately by factors of two."""
MOST_BLOCKS = 64
"""Most blocks of a picture; the strongest are kept."""
GRID = 9
"""Values along a side of a block."""
_STEP = 3
_REACH = (GRID // 2) * _STEP + 1
_FINE, _COARSE = 1.5, 3.0
"""Standard deviations, in pixels, of the two Gaussians of the band-pass."""
_APART = 9
_FLAT = 8
"""Largest difference of values within a margin that is trimmed."""


@dataclass(frozen=True)
class Blocks:
    """Blocks of pictures. places: float32[n, 2], y and x from the picture's middle; values: float32[n, 9, 9], each of
    mean 0 and length 1.
    """

    places: Floats
    values: Floats

    def of(self, owners: Ints, picture: int) -> Blocks:
        """Return the blocks of one picture; `owners` is the picture of each block, ascending."""
        mine = slice(*np.searchsorted(owners, [picture, picture + 1]).tolist())
        return Blocks(self.places[mine], self.values[mine])


NO_BLOCKS = Blocks(np.empty((0, 2), np.float32), np.empty((0, GRID, GRID), np.float32))


@dataclass(frozen=True)
class Turn:
    """One of the eight symmetries of a square. values: maps squares [n, S, S]; places: maps positions [n, 2]."""

    values: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
    places: Callable[[Floats], Floats]


TURNS = (
    Turn(lambda v: v, lambda p: p),
    Turn(lambda v: v[:, :, ::-1], lambda p: p * (1, -1)),
    Turn(lambda v: v[:, ::-1], lambda p: p * (-1, 1)),
    Turn(lambda v: v[:, ::-1, ::-1], lambda p: -p),
    Turn(lambda v: v.transpose(0, 2, 1), lambda p: p[:, ::-1]),
    Turn(lambda v: v[:, ::-1, ::-1].transpose(0, 2, 1), lambda p: -p[:, ::-1]),
    # A quarter turn in either direction finds the same pair from one of its two pictures. Both are tried: blocks that
    # are rare among turned pictures may be common among upright ones.
    Turn(lambda v: v.transpose(0, 2, 1)[:, ::-1], lambda p: p[:, ::-1] * (-1, 1)),
    Turn(lambda v: v.transpose(0, 2, 1)[:, :, ::-1], lambda p: p[:, ::-1] * (1, -1)),
)


def find_blocks(pixels: npt.NDArray[np.uint8]) -> Blocks:
    """Return the blocks of a picture, uint8[H, W, 3]."""
    image = _trim(Image.fromarray(pixels).convert("L"))
    factor = 2.0 ** round(np.log2(SIDE / max(image.size)))  # a crop and its original keep the same scale
    width, height = (max(1, round(side * factor)) for side in image.size)
    gray = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    fine = gaussian_filter(gray, _FINE)
    band = np.abs(fine - gaussian_filter(gray, _COARSE))
    peaks = (band == maximum_filter(band, _APART)) & (band > 0.5)
    inner = np.zeros_like(peaks)
    inner[_REACH:-_REACH, _REACH:-_REACH] = True
    y, x = np.nonzero(peaks & inner)
    strongest = np.argsort(-band[y, x], kind="stable")[:MOST_BLOCKS]
    y, x = y[strongest], x[strongest]
    offsets = (np.arange(GRID) - GRID // 2) * _STEP
    values = fine[y[:, None, None] + offsets[:, None], x[:, None, None] + offsets]
    values = values - values.mean(axis=(1, 2), keepdims=True)
    values /= np.maximum(np.linalg.norm(values, axis=(1, 2), keepdims=True), 1e-6)
    middle = (np.array(gray.shape) - 1) / 2
    return Blocks((np.stack([y, x], axis=1) - middle).astype(np.float32), values.astype(np.float32))


def _trim(image: Image.Image) -> Image.Image:
    """Crop margins of a single value from a gray picture: the edge of a border would be its strongest extreme."""
    pixels = np.asarray(image)
    rows, columns = (np.flatnonzero(np.ptp(pixels, axis=axis) > _FLAT) for axis in (1, 0))
    if not len(rows) or not len(columns):
        return image
    # With borders left and right, a row of the picture is not flat but a row of a top border is.
    return image.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))
