"""Pictures of more than 8 bits a channel: read in full, then scaled by their true range."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from shards.errors import DecodeError

Range = tuple[float, float]
"""The values that become 0 and 255."""

_GRAY = {"I;16", "I;16L", "I;16B", "I;16N", "I", "F"}
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 258, 262, 284, 339  # TIFF
_APART, _SIGNED = 2, 2
"""Values of these tags: a plane for each channel, and signed integers."""

# Pillow keeps 8 of the 16 bits of a colour: these raw modes read the high bytes, and their partners of the other byte
# order, on the same data, the low ones. libtiff returns the machine's own order (N), little-endian on every machine
# that we know.
_OTHER_BYTES = {
    f"{bands};16{order}": f"{bands};16{other}"
    for bands in ("RGB", "RGBA", "RGBX", "CMYK")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B"))
}


@dataclass(frozen=True, slots=True)
class Deep:
    """The values of a picture of more than 8 bits a channel, or of signed ones, before scaling.

    values: [H, W] for gray, or [H, W, C] for colour or with alpha; alpha is 0..65535. mode: the mode after scaling: L,
    LA, RGB, RGBA or CMYK. declared: the range that the file declares; None if it declares none below 16 bits. inverted:
    whether 0 is white. clear: the gray level or colour that is transparent.
    """

    values: npt.NDArray[Any]
    mode: str = "L"
    declared: Range | None = None
    inverted: bool = False
    clear: int | tuple[int, ...] | None = None

    @property
    def has_alpha(self) -> bool:
        return self.mode in ("LA", "RGBA")

    @property
    def colours(self) -> npt.NDArray[Any]:
        """The values without alpha."""
        return self.values[:, :, :-1] if self.has_alpha else self.values

    @property
    def white(self) -> float:
        """The value that becomes white, if it follows only from the number of bits; else 0."""
        low, high = self.declared or (0.0, 65535.0)
        by_bits = low == 0 and (high + 1).is_integer() and int(high + 1).bit_count() == 1
        return high if by_bits and self.mode != "CMYK" else 0.0

    @property
    def peak(self) -> float:
        """The largest value, without alpha, if white follows only from the number of bits; else 0."""
        return float(self.colours.max()) if self.white else 0.0


def read_deep(image: Image.Image, data: bytes) -> Deep | None:
    """Return the values of a picture of more than 8 bits a channel, or signed; None for others.

    Args:
        image: Opened from `data`; afterwards loaded if it is gray or 8-bit.
        data: The picture's bytes.

    Raises:
        DecodeError: More than 8 bits in a layout that Pillow would misread.
    """
    deep = _read_values(image, data)
    if deep is None:
        return None
    # Pillow honours "white is zero" only at 8 bits. A PNG's transparent level uses its own 16 bits.
    return replace(deep, inverted=_tiff_tag(image, _PHOTOMETRIC, 1) == 0, clear=image.info.get("transparency"))


def _read_values(image: Image.Image, data: bytes) -> Deep | None:
    if image.format == "JPEG2000":
        return _read_jpeg2000(image, data)
    if image.format == "PPM" and (deep := _read_netpbm(image, data)):
        return deep
    rawmode = _find_rawmode(image)
    bits = _tiff_tag(image, _BITS_PER_SAMPLE, (8,))[0]
    if image.mode in _GRAY:
        values = np.asarray(image)
        # Pillow has no unsigned 32-bit mode: values from 2,147,483,648 up are negative.
        unsigned = rawmode == "I;32N"
        declared = (0.0, 2.0**bits - 1) if image.mode == "I;16" and 8 < bits < 16 else None
        return Deep(values.view(np.uint32) if unsigned else values, declared=declared)
    if image.mode == "L" and _tiff_tag(image, _SAMPLE_FORMAT, (1,))[0] == _SIGNED:
        return Deep(np.asarray(image).view(np.int8))
    if rawmode == "LA;16B":
        pixels = _load_as(data, "RGBA").view(">u2")  # the four bytes of a pixel, in file order
        return Deep(pixels.astype(np.uint16), "LA")
    apart = bits > 8 and _tiff_tag(image, _PLANES, 1) == _APART
    if rawmode in _OTHER_BYTES and not apart:
        low, high = _load_as(data, _OTHER_BYTES[rawmode]), np.asarray(image)
        declared = (0.0, 65535.0) if image.mode == "CMYK" else None  # inks are not scaled by a range of light
        return Deep(high.astype(np.uint16) << 8 | low, image.mode, declared)
    if bits > 8:
        raise DecodeError(
            f"the picture is a TIFF of {image.mode} with {bits} bits a channel in a layout (Pillow's "
            f"{rawmode!r}{', a plane for each channel' if apart else ''}) that is read wrongly; store it with its "
            "channels interleaved and its alpha not premultiplied"
        )
    return None


def _read_netpbm(image: Image.Image, data: bytes) -> Deep | None:
    from shards.pictures.netpbm import find_peak, read_values  # late import, as in decode

    white = find_peak(image)
    if white is None:
        return None
    declared = (0.0, float(white)) if white < 65535 else None
    return Deep(read_values(image, data, white), "RGB" if image.mode == "RGB" else "L", declared)


def _read_jpeg2000(image: Image.Image, data: bytes) -> Deep | None:
    """Return gray of 9 to 16 bits, which Pillow shifts to the top of 16, signed if it is; None for up to 8 bits."""
    from shards.pictures.jpeg2000 import read_header, refuse_lossy  # late import, as in decode

    header = read_header(data)
    refuse_lossy(header)
    bits, signed = header.channels[0].bits, header.channels[0].signed
    if bits <= 8:
        return None
    values = np.asarray(image) >> (16 - bits)
    low = -float(1 << bits - 1) if signed else 0.0
    declared = (low, low + 2.0**bits - 1) if bits < 16 else None
    return Deep(values.astype(np.int32) + int(low) if signed else values, declared=declared)


def flatten(deep: Deep, gray_range: Range | None) -> Image.Image:
    """Return deep values as an 8-bit picture: L, LA, RGB, RGBA or CMYK.

    Raises:
        DecodeError: As `scale`.
    """
    if deep.mode == "CMYK":
        inks = scale(deep.values, None)
        return Image.merge("CMYK", [Image.fromarray(inks[:, :, ink]) for ink in range(4)])
    flat = scale(deep.colours, gray_range or deep.declared)
    flat = 255 - flat if deep.inverted else flat
    if deep.has_alpha:
        alpha = scale(deep.values[:, :, -1], (0.0, 65535.0))
    elif deep.clear is None:
        return Image.fromarray(flat)
    else:
        alpha = np.where((np.atleast_3d(deep.values) == np.array(deep.clear)).all(axis=2), np.uint8(0), np.uint8(255))
    return Image.fromarray(np.dstack([flat, alpha]))


def scale(values: npt.NDArray[Any], gray_range: Range | None) -> npt.NDArray[np.uint8]:
    """Return uint8 of the same shape: the ends of `gray_range` become 0 and 255, values outside are clipped.

    None means 0..65535, and values outside are an error.

    Raises:
        DecodeError: NaN or infinity among the values, or no range for values that need one (floats, signed bytes).
    """
    low, high = gray_range or (0.0, 65535.0)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return _scale_floats(np.arange(65536, dtype=np.float64), low, high)[values]
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise DecodeError("the picture holds values that are not numbers (NaN or infinity)", kind="range")
    guessed = values.dtype.kind == "f" or values.dtype.itemsize == 1
    if gray_range is None and (guessed or numbers.min() < low or numbers.max() > high):
        raise DecodeError(
            f"the picture is {values.dtype} {'gray' if values.ndim == 2 else 'colour'} with values "
            f"{numbers.min():g}..{numbers.max():g}, whose true range the file does not declare; give it with "
            "--range LO,HI",
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
    """Return the picture's pixels, read by another raw mode of Pillow."""
    image: Any = Image.open(io.BytesIO(data), formats=("PNG", "TIFF"))
    image.tile = [
        tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)
        for tile in image.tile
    ]
    return np.asarray(image)
