"""Pictures of more than 8 bits a channel: read whole, then scaled by their true range."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from shards.errors import DecodeError

Range = tuple[float, float]
"""Values that become 0 and 255."""

_GRAY = {"I;16", "I;16L", "I;16B", "I;16N", "I", "F"}
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF

# Pillow keeps 8 of the 16 bits of a colour: these raw modes take the high bytes, and their partners of the other byte
# order, on the same data, the low ones. libtiff hands out the machine's own order (N), which is little on all we know.
_OTHER_BYTES = {
    f"{bands};16{order}": f"{bands};16{other}"
    for bands in ("RGB", "RGBA", "RGBX")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B"))
}


def read_deep(image: Image.Image, data: bytes) -> npt.NDArray[Any] | None:
    """Return the values of a picture of more than 8 bits a channel, before scaling; None for all others.

    Args:
        image: Opened from `data`; loaded afterwards where it is gray, or 8-bit.
        data: The picture's bytes.

    Returns:
        uint16, int32 or float32[H, W] of gray, or uint16[H, W, C], C = 2 (gray, alpha), 3 or 4 (with alpha).

    Raises:
        DecodeError: 16-bit colour in a layout that Pillow would misread.
    """
    rawmode = _find_rawmode(image)
    if image.mode in _GRAY:
        return np.asarray(image)
    if rawmode == "LA;16B":
        return _load_as(data, "RGBA").view(">u2").astype(np.uint16)  # the four bytes of a pixel, as they lie
    if rawmode in _OTHER_BYTES:
        low, high = _load_as(data, _OTHER_BYTES[rawmode]), np.asarray(image)
        return high.astype(np.uint16) << 8 | low
    if _tiff_tag(image, _BITS_PER_SAMPLE, (8,))[0] > 8 and image.mode != "CMYK":
        raise DecodeError(
            f"the picture is a TIFF of {image.mode} with {_tiff_tag(image, _BITS_PER_SAMPLE, ())[0]} bits a channel in "
            f"a layout (Pillow's {rawmode!r}) that is read wrongly; store it with its channels interleaved and its "
            "alpha not premultiplied",
            kind="unreadable",
        )
    return None


def known_range(image: Image.Image) -> Range | None:
    """Return the range of deep gray that the file itself tells; None where it tells none below 16 bits."""
    bits = _tiff_tag(image, _BITS_PER_SAMPLE, (0,))[0]
    return (0.0, 2.0**bits - 1) if image.mode == "I;16" and 8 < bits < 16 else None


def flatten(image: Image.Image, values: npt.NDArray[Any], gray_range: Range | None) -> Image.Image:
    """Return the 8-bit L, LA, RGB or RGBA picture of `values`, which `read_deep` gave of `image`.

    Raises:
        DecodeError: As `scale`.
    """
    with_alpha = values.ndim == 3 and values.shape[2] in (2, 4)
    colours = values[:, :, :-1] if with_alpha else values
    flat = scale(colours, gray_range or known_range(image))
    if _tiff_tag(image, _PHOTOMETRIC, 1) == 0:  # white is zero, which Pillow minds at 8 bits only
        flat = 255 - flat
    if with_alpha:
        alpha = scale(values[:, :, -1], None)
    else:
        clear = image.info.get("transparency")  # one gray level or colour of a PNG, in its own 16 bits
        if clear is None:
            return Image.fromarray(flat)
        alpha = np.where((np.atleast_3d(values) == np.array(clear)).all(axis=2), np.uint8(0), np.uint8(255))
    return Image.fromarray(np.dstack([flat, alpha]))


def peak_of(values: npt.NDArray[Any]) -> float:
    """Return the largest value of what `read_deep` gave, alpha left out."""
    return float((values[:, :, :-1] if values.ndim == 3 and values.shape[2] in (2, 4) else values).max())


def scale(values: npt.NDArray[Any], gray_range: Range | None) -> npt.NDArray[np.uint8]:
    """Return uint8 of the same shape: the ends of `gray_range` become 0 and 255, what lies outside is clipped.

    None means 0..65535, and then nothing may lie outside.

    Raises:
        DecodeError: NaN or infinity among the values, or no range for values that need one.
    """
    low, high = gray_range or (0.0, 65535.0)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return _scale_floats(np.arange(65536, dtype=np.float64), low, high)[values]
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise DecodeError("the picture holds values that are not numbers (NaN or infinity)", kind="range")
    if gray_range is None and (numbers.min() < low or numbers.max() > high or values.dtype.kind == "f"):
        raise DecodeError(
            f"the picture is {values.dtype} gray with values {numbers.min():g}..{numbers.max():g}, "
            "whose true range the file does not tell; give it with --range LO,HI",
            kind="range",
        )
    return _scale_floats(numbers, low, high)


def _scale_floats(numbers: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.uint8]:
    return np.rint((np.clip(numbers, low, high) - low) * 255.0 / (high - low)).astype(np.uint8)


def _find_rawmode(image: Image.Image) -> str:
    args = image.tile[0][3] if getattr(image, "tile", None) else ""  # type: ignore[attr-defined]
    return str(args[0] if isinstance(args, tuple) and args else args)


def _tiff_tag(image: Image.Image, tag: int, default: Any) -> Any:
    return image.tag_v2.get(tag, default) if hasattr(image, "tag_v2") else default


def _load_as(data: bytes, rawmode: str) -> npt.NDArray[np.uint8]:
    """Return the picture's pixels unpacked by another raw mode of Pillow."""
    image: Any = Image.open(io.BytesIO(data), formats=("PNG", "TIFF"))
    image.tile = [
        tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)
        for tile in image.tile
    ]
    return np.asarray(image)
