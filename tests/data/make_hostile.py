"""Hostile pictures and what is promised of each: `python tests/data/make_hostile.py FOLDER` writes them all.

Tests build them in a temporary folder, so that no binary files lie in the repository.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 48, 32


class Hostile(NamedTuple):
    """One file. `size` is (width, height) of what it decodes to, None where it must be refused; `says` is a part
    of the refusal's message."""

    name: str
    make: Callable[[], bytes]
    size: tuple[int, int] | None
    says: str = ""


def rgb_pixels() -> np.ndarray:
    """Return uint8[32, 48, 3] of noise, the same each time."""
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def rgb() -> Image.Image:
    return Image.fromarray(rgb_pixels())


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return the file's bytes."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def oriented(kind: str, orientation: int, image: Image.Image | None = None, **options: Any) -> bytes:
    """Return a picture whose EXIF tells an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(image or rgb(), kind, exif=exif, **options)


def broken_exif(kind: str) -> bytes:
    """Return a picture whose EXIF block has no TIFF header."""
    return encode(rgb(), kind, exif=b"Exif\x00\x00not a TIFF header at all")


def unwritable_exif() -> bytes:
    """Return a JPEG that is turned by its EXIF, which also holds a number where a text belongs."""
    entries = struct.pack(">HHII", 0x010F, 5, 1, 100) + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    block = b"MM\x00*" + struct.pack(">IH", 8, 2) + entries + bytes(4)
    return encode(rgb(), "JPEG", exif=b"Exif\x00\x00" + block.ljust(100, b"\x00") + struct.pack(">II", 1, 1))


def png_of(width: int, height: int, body: bytes = b"") -> bytes:
    """Return a PNG whose header tells a size that its few bytes of pixels do not have."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def gif_of(width: int, height: int) -> bytes:
    data = bytearray(encode(rgb().quantize(8), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def flipped(data: bytes) -> bytes:
    """Return the bytes with one bit in their middle changed."""
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    return bytes(changed)


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def animated(kind: str) -> bytes:
    """Return three frames: red, green, blue."""
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("#f00", "#0f0", "#00f")]
    return encode(frames[0], kind, save_all=True, append_images=frames[1:])


def deep(values: np.ndarray, kind: str = "TIFF") -> bytes:
    return encode(Image.fromarray(values), kind)


def deep_ramp(peak: int = 65535) -> np.ndarray:
    """Return uint16[32, 48]: a ramp 0..peak."""
    return np.linspace(0, peak, WIDTH * HEIGHT).round().astype(np.uint16).reshape(HEIGHT, WIDTH)


_AS_STORED = (WIDTH, HEIGHT)
_TURNED = (HEIGHT, WIDTH)
_FLOATS = np.linspace(0, 1, WIDTH * HEIGHT, dtype=np.float32).reshape(HEIGHT, WIDTH)

HOSTILE = [
    Hostile("zero.jpg", lambda: b"", None, "is empty (0 bytes)"),
    Hostile("text.png", lambda: b"this is no picture\n" * 50, None, "no known picture format"),
    Hostile("not_found.jpg", lambda: b"<!doctype html><title>404</title>" * 9, None, "no known picture format"),
    Hostile("vector.png", lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', None, "no known picture format"),
    Hostile("archive.jpg", lambda: b"PK\x03\x04" + bytes(200), None, "no known picture format"),
    Hostile(
        "program.png",  # Pillow would hand it to Ghostscript
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
        None,
        "no known picture format",
    ),
    Hostile("magic_only.jpg", lambda: b"\xff\xd8\xff\xe0", None, "cannot be decoded"),
    Hostile("cut.jpg", lambda: half(encode(rgb(), "JPEG")), None, "truncated"),
    Hostile("cut.png", lambda: half(encode(rgb(), "PNG")), None, "truncated"),
    Hostile("cut.webp", lambda: half(encode(rgb(), "WEBP")), None, "cannot be decoded"),
    Hostile("cut.tif", lambda: half(encode(rgb(), "TIFF")), None, "cannot be decoded"),
    Hostile("cut.gif", lambda: half(encode(rgb().quantize(), "GIF")), None, "cannot be decoded"),
    Hostile("cut.bmp", lambda: half(encode(rgb(), "BMP")), None, "truncated"),
    Hostile("flipped.png", lambda: flipped(encode(rgb(), "PNG")), None, "broken data stream"),
    Hostile("bomb.png", lambda: png_of(50_000, 50_000), None, "50,000 x 50,000 pixels, over the limit of 100,000,000"),
    Hostile("bomb.gif", lambda: gif_of(65_535, 65_535), None, "65,535 x 65,535 pixels, over the limit"),
    Hostile("short.png", lambda: png_of(100, 100), None, "truncated"),
    Hostile("float.tif", lambda: deep(_FLOATS), None, "float32 gray with values 0..1, whose true range"),
    Hostile("nan.tif", lambda: deep(np.full_like(_FLOATS, np.nan)), None, "not numbers (NaN or infinity)"),
    Hostile("negative.tif", lambda: deep(deep_ramp().astype(np.int32) - 1024), None, "values -1024..64511"),
    Hostile(
        "bad_profile.jpg",
        lambda: encode(rgb().convert("CMYK"), "JPEG", icc_profile=b"no profile"),
        None,
        "CMYK profile",
    ),
    Hostile("sideways.jpg", lambda: oriented("JPEG", 6), _TURNED),
    Hostile("orientation_9.jpg", lambda: oriented("JPEG", 9), _AS_STORED),
    Hostile("broken_exif.jpg", lambda: broken_exif("JPEG"), _AS_STORED),
    Hostile("broken_exif.png", lambda: broken_exif("PNG"), _AS_STORED),
    Hostile("broken_exif.webp", lambda: broken_exif("WEBP"), _AS_STORED),
    Hostile("unwritable_exif.jpg", unwritable_exif, _TURNED),
    Hostile("bad_profile.png", lambda: encode(rgb(), "PNG", icc_profile=b"no profile"), _AS_STORED),
    Hostile("cmyk.jpg", lambda: encode(rgb().convert("CMYK"), "JPEG"), _AS_STORED),
    Hostile("png_inside.jpg", lambda: encode(rgb(), "PNG"), _AS_STORED),
    Hostile("junk_after_end.jpg", lambda: encode(rgb(), "JPEG") + b"junk" * 99, _AS_STORED),
    Hostile("animated.gif", lambda: animated("GIF"), _AS_STORED),
    Hostile("animated.webp", lambda: animated("WEBP"), _AS_STORED),
    Hostile("pages.tif", lambda: animated("TIFF"), _AS_STORED),
    Hostile("one_bit.png", lambda: encode(rgb().convert("1"), "PNG"), _AS_STORED),
    Hostile("gray_alpha.png", lambda: encode(rgb().convert("LA"), "PNG"), _AS_STORED),
    Hostile("palette_alpha.png", lambda: encode(rgb().quantize(8), "PNG", transparency=3), _AS_STORED),
    Hostile("deep.png", lambda: deep(deep_ramp(), "PNG"), _AS_STORED),
    Hostile("one_pixel.png", lambda: encode(Image.new("RGB", (1, 1)), "PNG"), (1, 1)),
    Hostile("thread.png", lambda: encode(Image.new("RGB", (5000, 1)), "PNG"), (5000, 1)),
]


def write_hostile(folder: Path) -> list[Hostile]:
    """Write every hostile picture into `folder`; return the table."""
    folder.mkdir(parents=True, exist_ok=True)
    for item in HOSTILE:
        (folder / item.name).write_bytes(item.make())
    return HOSTILE


if __name__ == "__main__":
    for item in write_hostile(Path(sys.argv[1])):
        print(item.name, f"decodes to {item.size}" if item.size else f"is refused: {item.says}", sep="\t")
