"""The one decoder: picture bytes -> uint8[H, W, 3], for audit, evaluation, prediction and serving alike."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import xxhash
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, field_validator

from shards.errors import DecodeError

# Pillow's own bomb guard is process-wide and warns before it raises; DecodeOptions.max_pixels takes its place.
Image.MAX_IMAGE_PIXELS = None

# Pillow knows more formats, and some are programs: it hands PostScript to Ghostscript. Strangers send us pictures.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
_DEEP_GRAY = {"I;16", "I;16L", "I;16B", "I;16N", "I", "F"}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class DecodeOptions(BaseModel):
    """What decoding depends on beside the bytes; recorded in the dataset and in the bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gray_range: tuple[float, float] | None = None
    """Values of deep (16-bit, 32-bit, float) gray that become 0 and 255; None means 0..65535 for 16 bits."""
    background: tuple[int, int, int] = (255, 255, 255)
    """RGB colour, 0..255 each, under transparent pixels."""
    max_pixels: int = Field(default=100_000_000, gt=0)
    """Width times height above which a picture is refused before it is unpacked."""

    @field_validator("gray_range")
    @classmethod
    def _ascending(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not (value[0] < value[1] and np.isfinite(value).all()):
            raise ValueError("the two values must be finite and ascend")
        return value


class Picture(BaseModel):
    """Facts of one decoded picture, as the audit records them."""

    model_config = ConfigDict(frozen=True)

    format: str
    """Container by content, lower case: jpeg, png, webp, ..."""
    mode: str
    """Pillow's mode before conversion: L, RGB, I;16, CMYK, ..."""
    width: int
    height: int
    peak: float
    """Largest value of a deep gray picture before scaling; 0 for all others."""
    pixels_xxh3: str
    """xxh3-128 (32 hex digits) of the decoded pixels, shape included."""


def decode(data: bytes, options: DecodeOptions = DecodeOptions()) -> npt.NDArray[np.uint8]:
    """Return uint8[H, W, 3], RGB, upright.

    EXIF orientation is applied; deep gray is scaled by its range and never clipped by a mode conversion; CMYK
    goes through its embedded profile; transparency is laid on `options.background`; of several frames the
    first is taken.

    Raises:
        DecodeError: Not a complete picture, over the pixel limit, or deep gray of unknown range.
    """
    with _refusing(data):
        return _decode_image(_open(data, options), options)


def inspect(data: bytes, options: DecodeOptions = DecodeOptions()) -> Picture:
    """Decode once and return the facts that the index and the audit keep.

    Raises:
        DecodeError: As `decode`.
    """
    with _refusing(data):
        image = _open(data, options)
        peak = float(np.asarray(image).max()) if image.mode in _DEEP_GRAY else 0.0
        mode, kind = image.mode, (image.format or "unknown").lower()
        pixels = _decode_image(image, options)
    return Picture(
        format=kind,
        mode=mode,
        width=pixels.shape[1],
        height=pixels.shape[0],
        peak=peak,
        pixels_xxh3=hash_pixels(pixels),
    )


def hash_pixels(pixels: npt.NDArray[np.uint8]) -> str:
    """Return xxh3-128 (32 hex digits) of the shape and the bytes of `pixels`."""
    digest = xxhash.xxh3_128(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


@contextlib.contextmanager
def _refusing(data: bytes) -> Iterator[None]:
    """Make one kind of all that Pillow raises on hostile bytes: OSError, SyntaxError, struct.error, KeyError, ..."""
    try:
        yield
    except DecodeError:
        raise
    except Exception as err:
        reason = "no known picture format" if isinstance(err, UnidentifiedImageError) else str(err)
        raise DecodeError(f"the picture cannot be decoded ({len(data):,} bytes: {reason})") from err


def _open(data: bytes, options: DecodeOptions) -> Image.Image:
    """Return the picture with its pixels loaded."""
    if not data:
        raise DecodeError("the picture is empty (0 bytes)")
    image = Image.open(io.BytesIO(data), formats=_FORMATS)
    if image.width * image.height > options.max_pixels:
        raise DecodeError(
            f"the picture has {image.width:,} x {image.height:,} pixels, over the limit of {options.max_pixels:,}"
        )
    image.load()
    return image


def _decode_image(image: Image.Image, options: DecodeOptions) -> npt.NDArray[np.uint8]:
    upright = _turn_upright(image)
    if upright.mode in _DEEP_GRAY:
        gray = _scale_deep_gray(np.asarray(upright), options)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        canvas = Image.new("RGBA", layer.size, (*options.background, 255))
        upright = Image.alpha_composite(canvas, layer)
    elif upright.mode == "CMYK":
        upright = _convert_cmyk(upright)
    # np.array, not asarray: the result is writable, and torch warns about buffers that are not.
    return np.array(upright.convert("RGB"))


def _turn_upright(image: Image.Image) -> Image.Image:
    """Return the picture as its EXIF orientation says; EXIF that cannot be read says nothing."""
    # ImageOps.exif_transpose also writes the rest of the EXIF anew, and raises where that is malformed.
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        turn = None
    return image if turn is None else image.transpose(turn)


def _scale_deep_gray(values: npt.NDArray[np.generic], options: DecodeOptions) -> npt.NDArray[np.uint8]:
    low, high = options.gray_range or (0.0, 65535.0)
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise DecodeError("the picture holds values that are not numbers (NaN or infinity)")
    if options.gray_range is None and (numbers.min() < low or numbers.max() > high or values.dtype.kind == "f"):
        raise DecodeError(
            f"the picture is {values.dtype} gray with values {numbers.min():g}..{numbers.max():g}, "
            "whose true range the file does not tell; give it with --range LO,HI"
        )
    scaled = (np.clip(numbers, low, high) - low) * (255.0 / (high - low))
    return np.rint(scaled).astype(np.uint8)


def _convert_cmyk(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not profile:
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError) as err:  # OSError: the profile itself cannot be parsed
        raise DecodeError(f"the embedded CMYK profile cannot be used: {err}") from err
    assert converted is not None  # only inPlace=True returns None
    return converted
