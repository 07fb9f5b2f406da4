"""PGM and PPM of more than 8 bits: their values as they stand in the file; Pillow would scale them first."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from shards.errors import DecodeError

_COMMENT = re.compile(rb"#[^\r\n]*")


def find_peak(image: Image.Image) -> int | None:
    """Return the value of white, 256..65535, of an opened and not yet loaded PGM or PPM; None up to 8 bits."""
    if image.mode not in ("I", "RGB"):
        return None
    args: Any = image.tile[0].args  # type: ignore[attr-defined]
    if args == "I;16B":  # Pillow reads this one in one piece, and does not repeat what the header told
        return 65535
    return int(args[1]) if isinstance(args, tuple) and args[1] > 255 else None


def read_values(image: Image.Image, data: bytes, peak: int) -> npt.NDArray[np.uint16]:
    """Return uint16[H, W] of gray or uint16[H, W, 3], 0..peak, of an opened and not yet loaded picture.

    Raises:
        DecodeError: Fewer values than the header tells, or in a text what is no number of 0..peak.
    """
    shape = (image.height, image.width, 3) if image.mode == "RGB" else (image.height, image.width)
    count = math.prod(shape)
    body = data[image.tile[0].offset :]  # type: ignore[attr-defined]
    if data[1:2] in b"23":
        values = _read_text(body, count, peak)
    else:
        values = np.minimum(np.frombuffer(body, ">u2", min(count, len(body) // 2)), peak).astype(np.uint16)
    if len(values) < count:
        raise DecodeError(
            f"the picture cannot be decoded ({len(data):,} bytes: truncated; {len(values):,} of {count:,} values)",
            kind="truncated",
        )
    return values.reshape(shape)


def _read_text(body: bytes, count: int, peak: int) -> npt.NDArray[np.uint16]:
    words = _COMMENT.sub(b"", body).split(maxsplit=count)[:count]
    for word in words:
        if not (word.isdigit() and len(word) <= 10 and int(word) <= peak):
            raise DecodeError(f"the picture says that its white is {peak} and holds {word[:10].decode('latin-1')!r}")
    return np.array([int(word) for word in words], dtype=np.uint16)
