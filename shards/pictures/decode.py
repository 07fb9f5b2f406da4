"""The only decoder: picture bytes -> uint8[H, W, 3], for audit, evaluation, prediction and serving.

Readers of rare formats are imported on demand: most programs never need one.
"""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import xxhash
from PIL import ExifTags, Image, features
from pydantic import BaseModel, ConfigDict, Field, field_validator

from shards.errors import DecodeError
from shards.pictures.deep import Deep, flatten, read_deep
from shards.pictures.flat import fill_range, to_rgb
from shards.pictures.signature import find_heif, is_dicom, is_jpeg2000, is_tiff, refuse_bomb

# Pillow's own limit is process-wide and warns before it raises; DecodeOptions.max_pixels replaces it.
Image.MAX_IMAGE_PIXELS = None

# Pillow knows more formats, and some are programs: it passes PostScript to Ghostscript. Our pictures are untrusted.
_FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "BMP",
    "GIF",
    "TIFF",
    "PPM",
    "JPEG2000",
    *(["AVIF"] if features.check("avif") else []),
)
_FILLING = 128
_LEFT_OVER = bytes(range(1, 255)) * 8
"""Bytes that contain no JPEG marker; decoded as entropy-coded data they give noise."""


class DecodeOptions(BaseModel):
    """What decoding depends on besides the bytes; recorded in the dataset and in the bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gray_range: tuple[float, float] | None = None
    """Values of deep pictures (16-bit, 32-bit, float, DICOM) that become 0 and 255; None means 0..65535 for 16 bits,
    and the file's own window for DICOM."""
    background: tuple[int, int, int] = (255, 255, 255)
    """RGB colour, 0..255 each, under transparent pixels."""
    max_pixels: int = Field(default=100_000_000, gt=0)
    """Width times height above which a picture is refused before it is unpacked."""
    frames: Literal["first", "refuse"] = "first"
    """Of a file with several frames or pages, use the first, or refuse the file."""

    @field_validator("gray_range")
    @classmethod
    def _ascending(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not (value[0] < value[1] and np.isfinite(value).all()):
            raise ValueError("the two values must be finite and ascending")
        return value


class Picture(BaseModel):
    """Facts of a decoded picture, as the audit records them."""

    model_config = ConfigDict(frozen=True)

    format: str
    """Container by content, lower case: jpeg, png, webp, ..."""
    mode: str
    """Pillow's mode before conversion: L, RGB, I;16, CMYK, ...; 16-bit colour has RGB;16, RGBA;16, LA;16, CMYK;16."""
    width: int
    height: int
    peak: float
    """Largest value before scaling of a deep picture whose white is known only from its bits; 0 for others."""
    white: float = 0.0
    """The value that becomes white in such a picture: 65535, 4095, ..."""
    hidden: bool = False
    """Whether every pixel is fully transparent, so that only the background is visible."""
    frames: int = 1
    """Frames or pages; previews, smaller versions and masks are not counted."""
    pixels_xxh3: str
    """xxh3-128 (32 hex digits) of the decoded pixels, shape included."""


def decode(data: bytes, options: DecodeOptions = DecodeOptions()) -> npt.NDArray[np.uint8]:
    """Return uint8[H, W, 3], RGB, upright.

    EXIF orientation is applied. Deep gray and colour are scaled by their range and never clipped by a mode conversion.
    CMYK is converted by its embedded profile. Transparent pixels are laid on `options.background`. A file of several
    frames gives its first frame or is refused. tests/data/README.md has the result for each unusual kind.

    A truncated JPEG is refused even if an end marker was appended, except a progressive one, whose last passes only
    sharpen the picture.

    Raises:
        DecodeError: Not a complete picture, over the pixel limit, or deep values of unknown range; `kind` says which.
    """
    with _refusing(data):
        return _unpack(data, options).pixels


def examine(data: bytes, options: DecodeOptions = DecodeOptions()) -> tuple[Picture, npt.NDArray[np.uint8]]:
    """Decode once; return the facts that the index and the audit keep, and the pixels as from `decode`.

    Raises:
        DecodeError: As `decode`.
    """
    with _refusing(data):
        unpacked = _unpack(data, options)
    facts = Picture(
        format=unpacked.format,
        mode=unpacked.mode,
        width=unpacked.pixels.shape[1],
        height=unpacked.pixels.shape[0],
        peak=unpacked.peak,
        white=unpacked.white,
        hidden=unpacked.hidden,
        frames=unpacked.frames,
        pixels_xxh3=hash_pixels(unpacked.pixels),
    )
    return facts, unpacked.pixels


def inspect(data: bytes, options: DecodeOptions = DecodeOptions()) -> Picture:
    """Return only the facts of `examine`.

    Raises:
        DecodeError: As `decode`.
    """
    return examine(data, options)[0]


def hash_pixels(pixels: npt.NDArray[np.uint8]) -> str:
    """Return the xxh3-128 (32 hex digits) of the shape and bytes of `pixels`."""
    digest = xxhash.xxh3_128(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _Unpacked:
    pixels: npt.NDArray[np.uint8]
    format: str
    mode: str
    frames: int
    peak: float = 0.0
    white: float = 0.0
    hidden: bool = False


@contextlib.contextmanager
def _refusing(data: bytes) -> Iterator[None]:
    """Turn everything that Pillow raises on hostile bytes (OSError, SyntaxError, struct.error, KeyError, ...) into
    DecodeError.
    """
    try:
        yield
    except DecodeError:
        raise
    except Exception as err:
        from shards.pictures.unread import explain_unread  # late import: most pictures can be read

        raise explain_unread(data, err) from err


def _unpack(data: bytes, options: DecodeOptions) -> _Unpacked:
    if not data:
        raise DecodeError("the picture is empty (0 bytes)", kind="empty")
    if is_dicom(data):
        return _unpack_dicom(data, options)
    if not is_tiff(data):
        return _unpack_by_pillow(data, None, options)
    from shards.pictures.tiff import read_odd_tiff
    from shards.pictures.tiff_pages import pick_page

    data, pages = pick_page(data)
    odd = read_odd_tiff(data, options.max_pixels)
    return _unpack_by_pillow(data, pages, options) if odd is None else _unpack_odd(*odd, pages or 1, options)


def _unpack_dicom(data: bytes, options: DecodeOptions) -> _Unpacked:
    from shards.pictures.dicom import read_dicom

    found = read_dicom(data, options.gray_range, options.max_pixels, options.frames == "refuse")
    return _Unpacked(found.pixels, "dicom", found.mode, found.frames, found.peak, found.white)


def _unpack_by_pillow(data: bytes, pages: int | None, options: DecodeOptions) -> _Unpacked:
    """Decode with Pillow; pages: how many pages of a TIFF are pictures."""
    image = _open(data, options)
    kind, mode = (image.format or "unknown").lower(), image.mode
    frames = _count_frames(image, pages, options)
    deep = read_deep(image, data)
    if deep is None:
        image.load()
        _refuse_filling(image, data)
        pixels, hidden = to_rgb(fill_range(image, data), image, options.background)
        return _Unpacked(pixels, "heic" if kind == "heif" else kind, mode, frames, hidden=hidden)
    if deep.mode != "L":
        mode = f"{deep.mode};16"
    pixels, hidden = to_rgb(flatten(deep, options.gray_range), image, options.background)
    return _Unpacked(pixels, kind, mode, frames, deep.peak, deep.white, hidden)


def _unpack_odd(deep: Deep, orientation: int, frames: int, options: DecodeOptions) -> _Unpacked:
    """Return the picture of a TIFF that Pillow cannot read."""
    _refuse_frames(frames, options)
    flat = flatten(deep, options.gray_range)
    flat.getexif()[ExifTags.Base.Orientation] = orientation
    pixels, hidden = to_rgb(flat, flat, options.background)
    mode = {"f": "F", "i": "I"}.get(deep.values.dtype.kind, "I;16")
    mode = mode if deep.mode == "L" else f"{deep.mode};16"
    return _Unpacked(pixels, "tiff", mode, frames, deep.peak, deep.white, hidden)


def _open(data: bytes, options: DecodeOptions) -> Image.Image:
    """Return the picture, opened and checked against the pixel limit, but not loaded."""
    refuse_bomb(*_read_webp_size(data), options.max_pixels)
    if find_heif(data) == "heic":
        from shards.pictures.heic import open_heic

        image = open_heic(data)
    elif is_jpeg2000(data):
        from shards.pictures.jpeg2000 import pick_codestream

        image = Image.open(io.BytesIO(pick_codestream(data)), formats=_FORMATS)
    else:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    refuse_bomb(image.width, image.height, options.max_pixels)
    return image


def _read_webp_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) of an extended WebP's canvas, whose memory Pillow allocates on opening; else (0, 0)."""
    if data[:4] != b"RIFF" or data[8:16] != b"WEBPVP8X" or len(data) < 30:
        return 0, 0
    return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")


def _count_frames(image: Image.Image, pages: int | None, options: DecodeOptions) -> int:
    """Return the number of frames in `image` without decoding them; pages: how many pages of a TIFF are pictures."""
    if image.format == "MPO":
        return 1
    try:
        frames = pages or int(getattr(image, "n_frames", 1))
    except (OSError, SyntaxError, ValueError, KeyError, struct.error):
        if options.frames == "refuse":
            raise
        frames = 1  # only the frames after the first are damaged, and they are not used
        image.seek(0)
    _refuse_frames(frames, options)
    return frames


def _refuse_frames(frames: int, options: DecodeOptions) -> None:
    if frames > 1 and options.frames == "refuse":
        raise DecodeError(
            f"the picture has {frames} frames, but only one is allowed; keep the one that counts, or use the first "
            "of each with --frames first",
            kind="frames",
        )


def _refuse_filling(image: Image.Image, data: bytes) -> None:
    """Raise a DecodeError for a JPEG that ends before its last block, with or without an end marker.

    libjpeg fills missing blocks with gray 128 and warns, but Pillow drops the warning. A picture may also end in this
    gray, so bytes are inserted before the end marker: a complete picture ignores them, a truncated one decodes them.
    """
    corner = (max(0, image.width - 8), max(0, image.height - 8), image.width, image.height)
    if image.format not in ("JPEG", "MPO") or set(image.crop(corner).tobytes()) != {_FILLING}:
        return
    end = data.rfind(b"\xff\xd9")
    other = Image.open(io.BytesIO(data[:end] + _LEFT_OVER + data[end:]), formats=("JPEG",))
    if other.convert(image.mode).tobytes() != image.tobytes():
        raise DecodeError(
            f"the picture is truncated, but closed with an end marker ({len(data):,} bytes): its end would be gray",
            kind="truncated",
        )
