"""PGM and PPM of more than 8 bits: their values as stored in the file; Pillow would scale them first."""

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
    """Return the value of white, 256..65535, of a PGM or PPM that is opened but not loaded; None for up to 8 bits."""
    if image.mode not in ("I", "RGB"):
        return None
    args: Any = image.tile[0].args  # type: ignore[attr-defined]
    if args == "I;16B":  # Pillow reads this mode in one piece and does not keep the header's value
        return 65535
    return int(args[1]) if isinstance(args, tuple) and args[1] > 255 else None


def read_values(image: Image.Image, data: bytes, peak: int) -> npt.NDArray[np.uint16]:
    """Return the values of a picture that is opened but not loaded: uint16[H, W] for gray or uint16[H, W, 3], 0..peak.

    Raises:
        DecodeError: Fewer values than the header declares, or a text file with something other than numbers of 0..peak.
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
            raise DecodeError(f"the picture declares {peak} as white but holds {word[:10].decode('latin-1')!r}")
    return np.array([int(word) for word in words], dtype=np.uint16)
