"""8-bit and shallower pictures of any mode to RGB: stretched to 0..255, upright, transparency and CMYK converted."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms

from shards.errors import DecodeError

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def fill_range(image: Image.Image, data: bytes) -> Image.Image:
    """Return a loaded 8-bit picture with channels of fewer bits stretched to 0..255; the same picture if all have 8.

    JPEG 2000: Pillow shifts values to the top bits, which makes 1-bit white 128 and palette indices too large. PNG:
    Pillow stretches grays of 2 and 4 bits, but not the gray that is marked as transparent.
    """
    if image.format == "JPEG2000":
        return _fill_jpeg2000(image, data)
    clear, bits = image.info.get("transparency"), data[24:25]
    if image.format == "PNG" and image.mode == "L" and bits in b"\x02\x04" and isinstance(clear, int):
        stretched = image.copy()
        stretched.info["transparency"] = clear * 255 // (2 ** bits[0] - 1)
        return stretched
    return image


def _fill_jpeg2000(image: Image.Image, data: bytes) -> Image.Image:
    from shards.pictures.jpeg2000 import read_header  # late import, as in decode

    header = read_header(data)
    if all(channel.bits == 8 for channel in header.channels):
        return image
    table: list[int] = []
    for number, channel in enumerate(header.channels):
        values = [value >> (8 - channel.bits) for value in range(256)]
        is_index = number == 0 and bool(header.palette)
        table += values if is_index else [round(value * 255 / (2**channel.bits - 1)) for value in values]
    return image.point(table)


def to_rgb(
    image: Image.Image, original: Image.Image, background: tuple[int, int, int]
) -> tuple[npt.NDArray[np.uint8], bool]:
    """Return uint8[H, W, 3] of a loaded 8-bit picture, rotated by the EXIF of `original`, and whether it is hidden:
    every pixel is fully transparent, so that the result is all `background`.

    Raises:
        DecodeError: An embedded CMYK profile that cannot be used.
    """
    upright, hidden = _turn_upright(_drop_empty_alpha(image), original), False
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        hidden = layer.getchannel("A").getextrema() == (0, 0)
        canvas = Image.new("RGBA", layer.size, (*background, 255))
        upright = Image.alpha_composite(canvas, layer)
    elif upright.mode == "CMYK":
        upright = _convert_cmyk(upright, original.info.get("icc_profile"))
    # np.array, not asarray: the result must be writable, or torch warns.
    return np.array(upright.convert("RGB")), hidden


def _drop_empty_alpha(image: Image.Image) -> Image.Image:
    """Remove the alpha of a BMP if it is 0 throughout: programs that write no alpha still declare it, and other readers
    show such a picture as opaque."""
    empty = image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0)
    return image.convert("RGB") if empty else image


def _turn_upright(image: Image.Image, original: Image.Image) -> Image.Image:
    """Return the picture rotated by the EXIF orientation of `original`; unreadable EXIF is ignored."""
    # ImageOps.exif_transpose also rewrites the rest of the EXIF, and raises if that is malformed.
    try:
        turn = _TURNS.get(original.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        turn = None
    return image if turn is None else image.transpose(turn)


def _convert_cmyk(image: Image.Image, profile: bytes | None) -> Image.Image:
    if not profile:
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError) as err:  # OSError: the profile itself cannot be parsed
        raise DecodeError(f"the embedded CMYK profile cannot be used: {err}") from err
    assert converted is not None  # only inPlace=True returns None
    return converted
