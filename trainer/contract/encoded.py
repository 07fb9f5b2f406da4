"""A picture from Python as the bytes of a file: it is read, or stored without loss; it imports no torch."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from shards.errors import UsageError

Picture = str | os.PathLike[str] | bytes | npt.NDArray[np.uint8] | Any
"""A path; an encoded picture; a PIL.Image.Image; or decoded pixels uint8[H, W, 3], RGB, or uint8[H, W], gray."""

_PNG_MODES = frozenset(["1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"])


def encode_picture(picture: Picture, compress_level: int = 0) -> bytes | npt.NDArray[np.uint8]:
    """Return the bytes of a picture's file, or of an array its checked pixels, see `check_pixels`.

    A PIL picture is stored as a lossless file, so that its orientation, palette and transparency are handled as for any
    other file.

    Args:
        picture: Any of the kinds in `Picture`.
        compress_level: Of PNG, 0 to 9.

    Raises:
        UsageError: The argument is not one of the kinds in `Picture`.
        OSError: The file cannot be read.
    """
    if isinstance(picture, (str, os.PathLike)):
        return Path(picture).read_bytes()
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return bytes(picture)
    if isinstance(picture, np.ndarray):
        return check_pixels(picture)
    if hasattr(picture, "getexif"):
        return _store(picture, compress_level)
    raise UsageError(
        f"a {type(picture).__name__} is not a picture; give a path, the bytes of a file, a PIL picture, or an array "
        "uint8[H, W, 3] or uint8[H, W]"
    )


def encode_file(picture: Picture, compress_level: int = 0) -> bytes:
    """Return the bytes of a picture's file; an array becomes a PNG. Takes and raises what `encode_picture` does."""
    encoded = encode_picture(picture, compress_level)
    if isinstance(encoded, bytes):
        return encoded
    return _store(Image.fromarray(encoded.squeeze(2) if encoded.shape[2] == 1 else encoded), compress_level)


def check_pixels(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return uint8[H, W, 3] or uint8[H, W, 1] of a picture's pixels.

    Raises:
        UsageError: An array of another type or shape.
    """
    is_gray = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 1)
    is_rgb = pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.dtype != np.uint8 or not (is_gray or is_rgb) or 0 in pixels.shape:
        shape = ", ".join(map(str, pixels.shape))
        raise UsageError(
            f"an array {pixels.dtype}[{shape}] is not a picture; give uint8[H, W, 3] in RGB or uint8[H, W], 0 to 255"
        )
    return pixels.reshape(*pixels.shape[:2], -1)


def _store(image: Any, compress_level: int) -> bytes:
    """Return a PIL picture as a lossless file: PNG, or TIFF for modes that PNG lacks, such as CMYK."""
    file = io.BytesIO()
    exif = image.getexif().tobytes() if image.getexif() else None
    if image.mode in _PNG_MODES:
        image.save(file, "PNG", compress_level=compress_level, **({"exif": exif} if exif else {}))
    else:
        image.save(file, "TIFF")
    return file.getvalue()
