"""Decoding: the bytes of a picture -> uint8[H, W, 3]."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError, features

Bytes = npt.NDArray[np.uint8]
Image.MAX_IMAGE_PIXELS = None  # replaced by `max_pixels` of the metadata
FORMATS = (
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
GRAY = {"I;16", "I;16L", "I;16B", "I;16N", "I", "F"}
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
OTHER_BYTES = {
    f"{bands};16{order}": f"{bands};16{other}"
    for bands in ("RGB", "RGBA", "RGBX")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B"))
}
"""Raw modes of Pillow that keep the high bytes of 16-bit colours, and those that read the low bytes."""


class PictureError(ValueError):
    """The endpoint rejects the picture, or this program cannot read it exactly as the endpoint does."""


def decode(data: bytes, options: dict[str, Any]) -> Bytes:
    """Return uint8[H, W, 3], RGB, upright; `options` is `preprocess.decode` of the metadata."""
    if not data:
        raise PictureError("the picture is empty (0 bytes)")
    if data[128:132] == b"DICM":
        raise PictureError("the picture is a DICOM file, which this program does not read; ask the endpoint")
    try:
        return _decode(data, options)
    except PictureError:
        raise
    except UnidentifiedImageError as err:
        raise PictureError(_name_unknown(data)) from err
    except Exception as err:  # Pillow raises anything on damaged bytes
        raise PictureError(
            f"the picture cannot be decoded ({len(data):,} bytes: {' '.join(str(err).split())})"
        ) from err


def _name_unknown(data: bytes) -> str:
    """Return the error for bytes that Pillow does not recognise; the endpoint may be able to read them."""
    what = ""
    if data[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"):
        what = "a TIFF of a rare layout"
    elif data[4:8] == b"ftyp":
        what = "HEIC, or AVIF that Pillow cannot read here"
    elif data[:1] in (b"\x02", b"\x08") and data[1:2] == data[3:4] == b"\x00":
        what = "a DICOM file"
    if what:
        return f"the picture is {what}, which this program does not read; ask the endpoint"
    return f"the picture cannot be decoded ({len(data):,} bytes: no known picture format)"


def _decode(data: bytes, options: dict[str, Any]) -> Bytes:
    if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X" and len(data) >= 30:  # Pillow allocates the pixels on opening
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        _refuse_bomb(width, height, options)
    opened = Image.open(io.BytesIO(data), formats=FORMATS)
    _refuse_bomb(opened.width, opened.height, options)
    _refuse_unread(opened, data)
    _refuse_frames(opened, options)
    values = _read_deep(opened, data)
    image: Image.Image = opened
    if values is None:
        opened.load()
        _refuse_filling(opened, data)
    else:
        image = _scale_deep(opened, values, options["gray_range"])
    try:
        turn = TURNS.get(opened.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # unreadable EXIF is ignored
        turn = None
    if turn is not None:
        image = image.transpose(turn)
    if image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        image = image.convert("RGB")  # the alpha channel is declared but not stored
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, (*options["background"], 255))
        image = Image.alpha_composite(canvas, image.convert("RGBA"))
    elif image.mode == "CMYK" and image.info.get("icc_profile"):
        image = _apply_profile(image)
    return np.array(image.convert("RGB"))


def _refuse_bomb(width: int, height: int, options: dict[str, Any]) -> None:
    if width * height > options["max_pixels"]:
        raise PictureError(
            f"the picture has {width:,} x {height:,} pixels, over the limit of {options['max_pixels']:,}"
        )


def _refuse_frames(image: Image.Image, options: dict[str, Any]) -> None:
    try:
        frames = 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
    except (OSError, SyntaxError, ValueError, KeyError, struct.error):
        if options["frames"] == "refuse":
            raise
        frames = 1  # only later frames are damaged, and the first one is used
        image.seek(0)
    if frames > 1 and options["frames"] == "refuse" and _count_pictures(image, frames) > 1:
        raise PictureError(f"the picture has {frames} frames, and one is asked for; keep the one that counts")


def _count_pictures(image: Image.Image, frames: int) -> int:
    """Return the number of frames that are neither reduced versions nor masks of a TIFF page; the first stays open."""
    count = 0
    for frame in range(frames):
        image.seek(frame)
        count += not (_tag(image, 254, 0) & 5 or _tag(image, 255, 1) == 2)
    image.seek(0)
    return count


def _refuse_unread(image: Image.Image, data: bytes) -> None:
    """Reject pictures that Pillow may not read bit for bit as the endpoint does, now or in a later version."""
    what, at, args = "", data.find(b"\xff\x4f\xff\x51"), _find_args(image)
    if _tag(image, 254, 0) & 5 or _tag(image, 255, 1) == 2:  # a reduced version, or a mask
        what = "a TIFF that begins with a preview"
    elif image.format == "JPEG2000":
        told = data[
            at + 42 : at + 42 + 3 * int.from_bytes(data[at + 40 : at + 42], "big") : 3
        ]  # bits - 1, and the sign
        if (set(told) != {7} and list(told) != [15]) or b"pclr" in data[:at]:
            what = "JPEG 2000 with a palette, or of other than 8 bits a channel or 16-bit gray"
    elif image.format == "PPM" and isinstance(args, tuple) and args[1] != 255:
        what = f"a PPM or PGM with a maximum value of {args[1]}"
    elif image.format == "PNG" and image.mode == "L" and data[24] < 8 and "transparency" in image.info:
        what = "a PNG of gray below 8 bits with a transparent level"
    elif image.mode == "CMYK" and _tag(image, 258, (8,))[0] > 8:
        what = "a TIFF of deep CMYK"
    elif _tag(image, 258, (8,))[0] > 8 and _tag(image, 284, 1) == 2:
        what = "a deep TIFF with separate channel planes"
    elif image.mode == "L" and _tag(image, 339, (1,))[0] == 2:
        what = "a TIFF of signed bytes"
    if what:
        raise PictureError(f"the picture is {what}, which this program does not read; store it as a plain PNG")


def _refuse_filling(image: Image.Image, data: bytes) -> None:
    """Reject a JPEG truncated and closed with an end marker: libjpeg fills the missing part with gray."""
    corner = (max(0, image.width - 8), max(0, image.height - 8), image.width, image.height)
    if image.format in ("JPEG", "MPO") and set(image.crop(corner).tobytes()) == {128}:
        end = data.rfind(b"\xff\xd9")
        other = Image.open(io.BytesIO(data[:end] + bytes(range(1, 255)) * 8 + data[end:]), formats=("JPEG",))
        if other.convert(image.mode).tobytes() != image.tobytes():
            raise PictureError(f"the picture was cut and closed with an end marker ({len(data):,} bytes)")


def _apply_profile(image: Image.Image) -> Image.Image:
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError) as err:
        raise PictureError(f"the embedded CMYK profile cannot be used: {err}") from err
    assert converted is not None  # only inPlace=True returns None
    return converted


def _read_deep(image: Image.Image, data: bytes) -> npt.NDArray[Any] | None:
    """Return all bits of a picture with more than 8 bits per channel, [H, W] or [H, W, C]; else None."""
    args = _find_args(image)
    rawmode = str(args[0] if isinstance(args, tuple) and args else args)
    if image.mode in GRAY:
        if rawmode == "I;32N" and np.asarray(image).min() < 0:  # values above 2,147,483,647
            raise PictureError(
                "the picture is a TIFF of unsigned 32 bits with values above 2,147,483,647, "
                "which this program does not read"
            )
        return np.asarray(image)
    if rawmode == "LA;16B":
        return _load_as(data, "RGBA").view(">u2").astype(np.uint16)
    if rawmode in OTHER_BYTES:
        low, high = _load_as(data, OTHER_BYTES[rawmode]), np.asarray(image)
        return high.astype(np.uint16) << 8 | low
    if _tag(image, 258, (8,))[0] > 8 and image.mode != "CMYK":
        raise PictureError(f"the picture is a deep TIFF in a layout (Pillow's {rawmode!r}) that is read wrongly")
    return None


def _load_as(data: bytes, rawmode: str) -> Bytes:
    image: Any = Image.open(io.BytesIO(data), formats=("PNG", "TIFF"))
    image.tile = [
        tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)
        for tile in image.tile
    ]
    return np.asarray(image)


def _find_args(image: Any) -> Any:
    """Return the arguments of Pillow's decoder: a raw mode, or more; "" for a loaded picture."""
    return image.tile[0][3] if getattr(image, "tile", None) else ""


def _tag(image: Image.Image, tag: int, default: Any) -> Any:
    return image.tag_v2.get(tag, default) if hasattr(image, "tag_v2") else default


def _scale_deep(image: Image.Image, values: npt.NDArray[Any], gray_range: list[float] | None) -> Image.Image:
    with_alpha = values.ndim == 3 and values.shape[2] in (2, 4)
    bits = _tag(image, 258, (0,))[0]  # a TIFF states its range
    own = [0.0, 2.0**bits - 1] if image.mode == "I;16" and 8 < bits < 16 else None
    flat = _scale(values[:, :, :-1] if with_alpha else values, gray_range or own)
    if _tag(image, 262, 1) == 0:  # white is zero
        flat = 255 - flat
    if with_alpha:
        alpha = _scale(values[:, :, -1], None)
    elif image.info.get("transparency") is not None:
        clear = (np.atleast_3d(values) == np.array(image.info["transparency"])).all(axis=2)
        alpha = np.where(clear, np.uint8(0), np.uint8(255))
    else:
        return Image.fromarray(flat)
    return Image.fromarray(np.dstack([flat, alpha]))


def _scale(values: npt.NDArray[Any], gray_range: list[float] | None) -> Bytes:
    (low, high), numbers = gray_range or (0.0, 65535.0), values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise PictureError("the picture holds values that are not numbers (NaN or infinity)")
    if gray_range is None and (numbers.min() < low or numbers.max() > high or values.dtype.kind == "f"):
        raise PictureError(f"the picture is {values.dtype} gray whose true range the file does not tell")
    return np.rint((np.clip(numbers, low, high) - low) * 255.0 / (high - low)).astype(np.uint8)
