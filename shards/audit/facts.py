"""The audit's facts about one picture: properties, hashes, a thumbnail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from shards.errors import DecodeError
from shards.files.fingerprint import hash_bytes
from shards.pictures import decode
from shards.pictures.decode import DecodeOptions

THUMBNAIL_SIDE = 32
THUMBNAIL_BYTES = THUMBNAIL_SIDE**2
_HASH_SIDE = 8


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts of a readable picture.

    format, mode, width, height, peak, white, hidden, pixels_xxh3: as in `shards.pictures.decode.Picture`. bytes_xxh3:
    xxh3-128 of the file, 32 hex digits. phash: 64 bits. thumbnail: uint8[32, 32], gray, whatever the picture's shape.
    """

    format: str
    mode: str
    width: int
    height: int
    peak: float
    white: float
    hidden: bool
    bytes_xxh3: str
    pixels_xxh3: str
    phash: int
    thumbnail: bytes


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why a picture is unreadable; kind: empty, truncated, bomb, range, frames or unreadable."""

    kind: str
    reason: str


def examine(data: bytes, options: DecodeOptions) -> Facts | Rejected:
    """Decode a picture once and return its facts."""
    try:
        picture, pixels = decode.examine(data, options)
    except DecodeError as err:
        return Rejected(err.kind, str(err))
    thumbnail = make_thumbnail(pixels)
    return Facts(
        picture.format,
        picture.mode,
        picture.width,
        picture.height,
        picture.peak,
        picture.white,
        picture.hidden,
        hash_bytes(data),
        picture.pixels_xxh3,
        compute_phash(thumbnail),
        thumbnail.tobytes(),
    )


def make_thumbnail(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return uint8[32, 32], gray: the picture uint8[H, W, 3] stretched to a square, antialiased."""
    gray = Image.fromarray(pixels).convert("L")
    # Area means (BOX) depend on the position of pixel edges, so a resized copy would differ. So does averaging whole
    # pixels first (reducing_gap=2): it finds 84 instead of 100 % of ELPV's doubled cells.
    small = gray.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small)


def _cosines() -> npt.NDArray[np.float32]:
    """Return float32[8, 32]: the 8 lowest waves of the DCT-II after the constant one."""
    place = np.arange(THUMBNAIL_SIDE) + 0.5
    waves = np.arange(1, _HASH_SIDE + 1)[:, None]
    return np.cos(np.pi / THUMBNAIL_SIDE * waves * place).astype(np.float32)


_COSINES = _cosines()


def compute_phash(thumbnail: npt.NDArray[np.uint8]) -> int:
    """Return 64 bits: which of the 8 x 8 lowest frequencies of a uint8[32, 32] are above their median.

    Source: the DCT-based perceptual hash of pHash (Zauner 2010).
    """
    waves = (_COSINES @ thumbnail.astype(np.float32) @ _COSINES.T).ravel()
    # np.median takes four times as long as all the rest; the median of 64 is the mean of the 32nd and 33rd.
    bits = waves > np.sort(waves)[31:33].mean()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
