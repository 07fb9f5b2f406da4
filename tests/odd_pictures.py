"""Odd pictures that are no damage, beside the hostile ones: each kind that people keep, large enough to be shrunk."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from data.make_hostile import HOSTILE, deep, deep_ramp, encode, oriented, png_rows, rgb, tiff
from PIL import Image
from test_shards_pictures_decode import cmyk_profile

UNREAD = "which this program does not read"
LEFT_OUT = {
    "deep_cmyk.tif",
    "deep_cmyk_planes.tif",
    "deep_planes.tif",
    "deep_planes_deflated.tif",
    "deep_rgb.ppm",
    "deep_text.pgm",
    "float_64.tif",
    "float_rgb.tif",
    "fourteen_bits.tif",
    "gray_9.jp2",
    "one_bit.j2k",
    "one_bit.jp2",
    "preview_above.tif",
    "preview_first.tif",
    "signed_8.tif",
    "ten_bits.tif",
    "two_bit_clear.png",
    "unsigned_32.tif",
}
"""Pictures that the decoder reads in ways of its own; the program refuses them, and says that it is its own limit."""


@functools.cache
def scene(width: int, height: int) -> Image.Image:
    """Return a picture of gradients, edges and noise, by which one filter differs from another."""
    rng = np.random.default_rng((width, height))
    down, across = np.mgrid[0:height, 0:width] / max(width, height)
    waves = np.stack([np.sin(40 * across * down), np.cos(90 * down), np.sign(np.sin(60 * across))], axis=2)
    return Image.fromarray((128 + 90 * waves + rng.normal(0, 20, waves.shape)).clip(0, 255).astype(np.uint8))


def moving() -> bytes:
    """Return an animated GIF whose frames are transparent in places."""
    first, second = (scene(90, 60).quantize(30), scene(60, 90).resize((90, 60)).quantize(30))
    return encode(first, "GIF", save_all=True, append_images=[second], transparency=3, disposal=2)


def pyramid() -> bytes:
    """Return a TIFF with a smaller version of its picture behind it."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(np.asarray(scene(120, 90)), photometric="rgb")
        writer.write(np.asarray(scene(120, 90).resize((60, 45))), photometric="rgb", subfiletype=1)
    return file.getvalue()


def with_alpha(mode: str) -> Image.Image:
    image = scene(120, 90).convert("RGBA")
    image.putalpha(scene(90, 120).resize((120, 90)).convert("L"))
    return image.convert(mode)


MORE: dict[str, Callable[[], bytes]] = {
    "big.jpg": lambda: encode(scene(1000, 700), "JPEG", quality=90),
    "tall.png": lambda: encode(scene(300, 900), "PNG"),
    "wide.webp": lambda: encode(scene(800, 90), "WEBP", quality=80),
    "upright_thread.png": lambda: encode(scene(1, 1000), "PNG"),
    "thread.bmp": lambda: encode(scene(1000, 1), "BMP"),
    "progressive.jpg": lambda: encode(scene(330, 220), "JPEG", progressive=True),
    "gray.jpg": lambda: encode(scene(330, 220).convert("L"), "JPEG"),
    "mirrored.jpg": lambda: oriented("JPEG", 5, scene(330, 220)),
    "turned.webp": lambda: oriented("WEBP", 8, scene(330, 220)),
    "turned.tif": lambda: oriented("TIFF", 3, scene(330, 220)),
    "alpha.png": lambda: encode(with_alpha("RGBA"), "PNG"),
    "alpha.webp": lambda: encode(with_alpha("RGBA"), "WEBP", lossless=True),
    "alpha.tif": lambda: encode(with_alpha("RGBA"), "TIFF"),
    "gray_alpha_big.png": lambda: encode(with_alpha("LA"), "PNG"),
    "palette.png": lambda: encode(scene(120, 90).quantize(40), "PNG", transparency=bytes(range(0, 240, 6))),
    "palette.bmp": lambda: encode(scene(120, 90).quantize(40), "BMP"),
    "clear_colour.png": lambda: encode(rgb(), "PNG", transparency=rgb().getpixel((3, 4))),
    "moving.gif": moving,
    "fax.tif": lambda: encode(scene(200, 300).convert("1"), "TIFF", compression="group4"),
    "pyramid.tif": pyramid,
    "pages_lzw.tif": lambda: encode(
        scene(150, 100), "TIFF", save_all=True, append_images=[scene(80, 90)], compression="tiff_lzw"
    ),
    "cmyk_profile.jpg": lambda: encode(scene(90, 60).convert("CMYK"), "JPEG", icc_profile=cmyk_profile(60)),
    "cmyk.tif": lambda: encode(scene(90, 60).convert("CMYK"), "TIFF"),
    "colour.ppm": lambda: encode(scene(120, 90), "PPM"),
    "gray.pgm": lambda: encode(scene(120, 90).convert("L"), "PPM"),
    "bits.pbm": lambda: encode(scene(120, 90).convert("1"), "PPM"),
    "deep.pgm": lambda: deep(deep_ramp(), "PPM"),
    "deep_big.png": lambda: deep(np.asarray(scene(400, 300).convert("L")).astype(np.uint16) * 250, "PNG"),
    "deep_big_endian.tif": lambda: deep(deep_ramp().astype(">u2")),
    "deep_rgb_big.png": lambda: png_rows(np.asarray(scene(300, 200)).astype(np.uint16) * 257),
    "twelve.tif": lambda: tiff(deep_ramp(4095)[:, :, None], {}),
    "int32.tif": lambda: deep(deep_ramp().astype(np.int32)),
    "plain.jp2": lambda: encode(scene(120, 90), "JPEG2000"),
    "deep_gray.jp2": lambda: deep(deep_ramp(), "JPEG2000"),
}


def write_odd(folder: Path) -> list[Path]:
    """Write all odd and all hostile pictures, and return their files."""
    for name, make in [*((item.name, item.make) for item in HOSTILE), *MORE.items()]:
        (folder / name).write_bytes(make())
    return sorted(folder.iterdir())
