"""Convert a picture from Python (path, bytes, PIL, array) to the model's input."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from shards.errors import UsageError
from trainer.contract.preprocess import PreprocessSpec, prepare, prepare_pixels

Picture = str | os.PathLike[str] | bytes | npt.NDArray[np.uint8] | Any
"""A path; an encoded picture; a PIL.Image.Image; or decoded pixels uint8[H, W, 3], RGB, or uint8[H, W], gray."""

_PNG_MODES = frozenset(["1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"])


def prepare_picture(picture: Picture, spec: PreprocessSpec) -> Tensor:
    """Return uint8[C, S, S] of a picture.

    A PIL picture is first stored as a lossless file, so that its orientation, palette and transparency are handled as
    for any other file.

    Raises:
        UsageError: The argument is not one of the kinds in `Picture`.
        DecodeError: The bytes are not one complete picture.
        OSError: The file cannot be read.
    """
    if isinstance(picture, (str, os.PathLike)):
        return prepare(Path(picture).read_bytes(), spec)
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return prepare(bytes(picture), spec)
    if isinstance(picture, np.ndarray):
        return prepare_pixels(_to_rgb(picture), spec)
    if hasattr(picture, "getexif"):
        return prepare(_store(picture), spec)
    raise UsageError(
        f"a {type(picture).__name__} is not a picture; give a path, the bytes of a file, a PIL picture, or an array "
        "uint8[H, W, 3] or uint8[H, W]"
    )


def _to_rgb(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    is_gray = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 1)
    is_rgb = pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.dtype != np.uint8 or not (is_gray or is_rgb) or 0 in pixels.shape:
        shape = ", ".join(map(str, pixels.shape))
        raise UsageError(
            f"an array {pixels.dtype}[{shape}] is not a picture; give uint8[H, W, 3] in RGB or uint8[H, W], 0 to 255"
        )
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return np.array(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))  # a copy: torch warns about read-only arrays


def _store(image: Any) -> bytes:
    """Return a PIL picture as a lossless file: PNG, or TIFF for modes that PNG lacks, such as CMYK."""
    file = io.BytesIO()
    exif = image.getexif().tobytes() if image.getexif() else None
    if image.mode in _PNG_MODES:
        image.save(file, "PNG", compress_level=0, **({"exif": exif} if exif else {}))
    else:
        image.save(file, "TIFF")
    return file.getvalue()
