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

try:
    from data import jpeg2000
except ImportError:  # run as a script
    import jpeg2000  # type: ignore[no-redef]

WIDTH, HEIGHT = 48, 32


class Hostile(NamedTuple):
    """One file. `what` it is; `size` is (width, height) of what it decodes to, None where it must be refused; `says`
    is a part of the refusal's message, `kind` its DecodeError.kind."""

    name: str
    what: str
    make: Callable[[], bytes]
    size: tuple[int, int] | None
    says: str = ""
    kind: str = "unreadable"


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


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, body: bytes = b"") -> bytes:
    """Return a PNG whose header tells a size that its few bytes of pixels do not have."""
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


def png_rows(values: np.ndarray, before: bytes = b"") -> bytes:
    """Return a 16-bit PNG of uint16[H, W, C], C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA; Pillow writes only gray."""
    height, width, channels = values.shape
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def png_grays(values: list[int], bits: int, before: bytes = b"") -> bytes:
    """Return a PNG of one row of gray with 1, 2, 4 or 8 bits."""
    packed = int("".join(f"{value:0{bits}b}" for value in values).ljust(-(-bits * len(values) // 8) * 8, "0"), 2)
    row = packed.to_bytes(-(-bits * len(values) // 8), "big")
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", len(values), 1, bits, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", zlib.compress(b"\x00" + row)) + chunk(b"IEND", b"")


def netpbm(values: np.ndarray, white: int, text: bool = False) -> bytes:
    """Return a PGM or PPM of uint16[H, W, C] with C = 1 or 3 whose white is any value from 1 to 65535."""
    height, width, channels = values.shape
    head = b"P%d # comment\n%d %d\n%d\n" % ((5 if channels == 1 else 6) - 3 * text, width, height, white)
    if text:
        return head + b"# a comment\n" + b" ".join(b"%d" % value for value in values.ravel()) + b"\n"
    return head + values.astype(">u2" if white > 255 else "u1").tobytes()


def twelve_bit_jpeg() -> bytes:
    """Return a JPEG whose frame tells 12 bits a channel."""
    data = bytearray(encode(rgb(), "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12
    return bytes(data)


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


def deep_rgb(channels: int = 3, peak: int = 65535) -> np.ndarray:
    """Return uint16[32, 48, C]: noise of 0..peak, the same each time."""
    return np.random.default_rng(1).integers(0, peak + 1, (HEIGHT, WIDTH, channels)).astype(np.uint16)


def tiff(values: np.ndarray, tags: dict[int, int], planes: bool = False) -> bytes:
    """Return a little-endian TIFF of uint16[H, W, C]; `tags` are added to the usual ones, or win; 259: 8 deflates."""
    height, width, channels = values.shape
    strips = [plane.tobytes() for plane in values.astype("<u2").transpose(2, 0, 1)]
    if not planes:
        strips = [values.astype("<u2").tobytes()]
    if tags.get(259) == 8:
        strips = [zlib.compress(strip) for strip in strips]
    parts, body, sizes = len(strips), b"".join(strips), [len(strip) for strip in strips]
    usual = {256: width, 257: height, 259: 1, 262: 2 if channels > 2 else 1, 277: channels, 278: height}
    usual |= {284: 2 if planes else 1}
    start = 8 + 2 + 12 * len(usual.keys() | tags.keys() | {258, 273, 279}) + 4
    more, entries = b"", []
    offsets = [start + 2 * channels + 8 * parts + sum(sizes[:part]) for part in range(parts)]
    lists = {258: ("H", [16] * channels), 273: ("I", offsets), 279: ("I", sizes)}
    lists |= {tag: ("H", [value]) for tag, value in (usual | tags).items()}
    for tag, (kind, items) in sorted(lists.items()):
        packed = struct.pack(f"<{len(items)}{kind}", *items)
        if len(packed) > 4:
            packed, more = struct.pack("<I", start + len(more)), more + packed
        entries.append(struct.pack("<HHI", tag, 3 if kind == "H" else 4, len(items)) + packed.ljust(4, b"\x00"))
    head = b"II*\x00" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)
    return (head + more).ljust(offsets[0], b"\x00") + body


def wide_tiff(values: np.ndarray) -> bytes:
    """Return a TIFF of [H, W, C] with C = 1 or 3 of any numbers, as they lie in memory."""
    bits, kind = 8 * values.dtype.itemsize, {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    channels = values.shape[2]
    shorts = np.ascontiguousarray(values).view(np.uint16).reshape(values.shape[0], values.shape[1], -1)
    return tiff(shorts, {258: bits, 339: kind, 262: 2 if channels == 3 else 1, 277: channels})


def packed_tiff(values: np.ndarray, bits: int) -> bytes:
    """Return a TIFF of uint16[H, W, C] with C = 1 or 3, each value in 9 to 15 bits, rows from a byte on."""
    width, channels = values.shape[1:]
    rows = [
        int("".join(f"{value:0{bits}b}" for value in row.ravel().tolist()).ljust(-(-row.size * bits // 8) * 8, "0"), 2)
        for row in values
    ]
    body = b"".join(row.to_bytes(-(-width * channels * bits // 8), "big") for row in rows)
    shorts = np.frombuffer(body.ljust(values.nbytes, b"\x00"), np.uint16).reshape(values.shape)
    return tiff(shorts, {258: bits})


def preview_tiff(below: bool = False, photometric: int = 2) -> bytes:
    """Return a TIFF whose first page is a preview of 8 x 8 black pixels, and the next one, or one below it, `rgb`."""
    height, width = HEIGHT, WIDTH
    preview, picture = bytes(8 * 8 * 3), rgb_pixels().tobytes()
    bits = struct.pack("<3H", 8, 8, 8)
    start = 8 + len(bits) + len(preview) + len(picture)

    def page(at: int, facts: dict[int, int], following: int) -> bytes:
        entries = [
            struct.pack("<HHI", tag, 3 if tag == 258 else 4, 3 if tag == 258 else 1) + struct.pack("<I", value)
            for tag, value in sorted(facts.items())
        ]
        return struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", following)

    def describe(kind: int, colours: int, sides: tuple[int, int], offset: int) -> dict[int, int]:
        size = sides[0] * sides[1] * 3
        return {
            254: kind, 256: sides[0], 257: sides[1], 258: 8, 259: 1, 262: colours, 273: offset, 277: 3, 278: sides[1],
            279: size,
        }  # fmt: skip

    first = describe(1, 2, (8, 8), 8 + len(bits)) | ({330: 0} if below else {})
    second = start + 2 + 12 * len(first) + 4
    first |= {330: second} if below else {}
    pages = page(start, first, 0 if below else second)
    pages += page(second, describe(0, photometric, (width, height), 8 + len(bits) + len(preview)), 0)
    return b"II*\x00" + struct.pack("<I", start) + bits + preview + picture + pages


def bmp_32(pixels: np.ndarray, alpha: int) -> bytes:
    """Return a BMP of uint8[H, W, 3] with a header that tells masks for colours and alpha, and one alpha throughout."""
    height, width = pixels.shape[:2]
    body = np.dstack([pixels[::-1, :, ::-1], np.full((height, width), alpha, np.uint8)]).tobytes()
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = struct.pack("<IiiHHIIiiII", 124, width, height, 1, 32, 3, len(body), 0, 0, 0, 0) + masks + b"BGRs"
    start = 14 + 124
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + head.ljust(124, b"\x00") + body


def ycck() -> bytes:
    """Return a CMYK JPEG whose Adobe marker tells YCCK, which Pillow reads and does not write: the same coefficients,
    taken for luma and chroma of the inks, and black."""
    data = encode(rgb().convert("CMYK"), "JPEG")
    adobe = data.index(b"Adobe")
    return data[: adobe + 11] + b"\x02" + data[adobe + 12 :]


def sideways_xmp() -> bytes:
    """Return a JPEG without EXIF whose XMP tells an orientation."""
    packet = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    return encode(rgb(), "JPEG", xmp=packet)


def half_gray() -> Image.Image:
    pixels = rgb_pixels()
    pixels[HEIGHT // 2 :] = 128
    return Image.fromarray(pixels)


def closed(data: bytes) -> bytes:
    """Return the first two thirds of a JPEG, closed with an end marker."""
    return data[: len(data) * 2 // 3] + b"\xff\xd9"


def bomb_webp() -> bytes:
    """Return a WebP whose canvas of 16,777,216 x 255 pixels Pillow would take memory for as it opens."""
    flags = bytes([2, 0, 0, 0]) + (16_777_215).to_bytes(3, "little") + (254).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + flags


def dicom_header(more: bytes = b"") -> bytes:
    """Return bytes that begin as a DICOM file does, and hold no picture."""
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", 20) + b"1.2.840.10008.1.2.1\x00"
    return bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta)) + meta + more


_AS_STORED = (WIDTH, HEIGHT)
_TURNED = (HEIGHT, WIDTH)
_FLOATS = np.linspace(0, 1, WIDTH * HEIGHT, dtype=np.float32).reshape(HEIGHT, WIDTH)

DAMAGED_BEHIND_HEADER = ("flipped.png", "short.png", "closed.jpg")
"""Their headers are whole, so only a decode finds the damage, which is what the audit does."""

HOSTILE = [
    Hostile("zero.jpg", "no bytes at all", lambda: b"", None, "is empty (0 bytes)", "empty"),
    Hostile(
        "text.png",
        "a text file with a picture's ending",
        lambda: b"this is no picture\n" * 50,
        None,
        "no known picture format",
    ),
    Hostile(
        "not_found.jpg",
        "the web page that a failed download left",
        lambda: b"<!doctype html><title>404</title>" * 9,
        None,
        "no known picture format",
    ),
    Hostile(
        "vector.png",
        "an SVG drawing",
        lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        None,
        "no known picture format",
    ),
    Hostile("archive.jpg", "a zip archive", lambda: b"PK\x03\x04" + bytes(200), None, "no known picture format"),
    Hostile(
        "program.png",
        "a PostScript program",  # Pillow would hand it to Ghostscript
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
        None,
        "no known picture format",
    ),
    Hostile("magic_only.jpg", "four bytes of a JPEG", lambda: b"\xff\xd8\xff\xe0", None, "truncated", "truncated"),
    Hostile("cut.jpg", "half of a JPEG", lambda: half(encode(rgb(), "JPEG")), None, "truncated", "truncated"),
    Hostile("cut.png", "half of a PNG", lambda: half(encode(rgb(), "PNG")), None, "truncated", "truncated"),
    Hostile("cut.webp", "half of a WebP", lambda: half(encode(rgb(), "WEBP")), None, "truncated", "truncated"),
    Hostile("cut.tif", "half of a TIFF", lambda: half(encode(rgb(), "TIFF")), None, "truncated", "truncated"),
    Hostile("cut.gif", "half of a GIF", lambda: half(encode(rgb().quantize(), "GIF")), None, "truncated", "truncated"),
    Hostile("cut.bmp", "half of a BMP", lambda: half(encode(rgb(), "BMP")), None, "truncated", "truncated"),
    Hostile(
        "flipped.png",
        "a PNG with one bit changed in its pixels",
        lambda: flipped(encode(rgb(), "PNG")),
        None,
        "broken data stream",
    ),
    Hostile(
        "bomb.png",
        "a PNG that tells 2,500,000,000 pixels",
        lambda: png_of(50_000, 50_000),
        None,
        "50,000 x 50,000 pixels, over the limit of 100,000,000",
        "bomb",
    ),
    Hostile(
        "bomb.gif",
        "a GIF that tells 4,294,836,225 pixels",
        lambda: gif_of(65_535, 65_535),
        None,
        "65,535 x 65,535 pixels, over the limit",
        "bomb",
    ),
    Hostile(
        "short.png",
        "a PNG with fewer pixels than its header tells",
        lambda: png_of(100, 100),
        None,
        "truncated",
        "truncated",
    ),
    Hostile(
        "float.tif",
        "float gray",
        lambda: deep(_FLOATS),
        None,
        "float32 gray with values 0..1, whose true range",
        "range",
    ),
    Hostile(
        "nan.tif",
        "float gray that is no number",
        lambda: deep(np.full_like(_FLOATS, np.nan)),
        None,
        "not numbers (NaN or infinity)",
        "range",
    ),
    Hostile(
        "negative.tif",
        "32-bit gray with negative values, as of CT",
        lambda: deep(deep_ramp().astype(np.int32) - 1024),
        None,
        "values -1024..64511",
        "range",
    ),
    Hostile(
        "bad_profile.jpg",
        "CMYK with a profile that is none",
        lambda: encode(rgb().convert("CMYK"), "JPEG", icc_profile=b"no profile"),
        None,
        "CMYK profile",
    ),
    Hostile("sideways.jpg", "turned by EXIF", lambda: oriented("JPEG", 6), _TURNED),
    Hostile("orientation_9.jpg", "an EXIF orientation that does not exist", lambda: oriented("JPEG", 9), _AS_STORED),
    Hostile("broken_exif.jpg", "JPEG with EXIF that cannot be read", lambda: broken_exif("JPEG"), _AS_STORED),
    Hostile("broken_exif.png", "PNG with EXIF that cannot be read", lambda: broken_exif("PNG"), _AS_STORED),
    Hostile("broken_exif.webp", "WebP with EXIF that cannot be read", lambda: broken_exif("WEBP"), _AS_STORED),
    Hostile("unwritable_exif.jpg", "turned by EXIF that is malformed elsewhere", unwritable_exif, _TURNED),
    Hostile(
        "bad_profile.png",
        "RGB with a profile that is none",
        lambda: encode(rgb(), "PNG", icc_profile=b"no profile"),
        _AS_STORED,
    ),
    Hostile("cmyk.jpg", "CMYK without a profile", lambda: encode(rgb().convert("CMYK"), "JPEG"), _AS_STORED),
    Hostile("png_inside.jpg", "a PNG with the ending of a JPEG", lambda: encode(rgb(), "PNG"), _AS_STORED),
    Hostile(
        "junk_after_end.jpg", "junk behind the end marker", lambda: encode(rgb(), "JPEG") + b"junk" * 99, _AS_STORED
    ),
    Hostile("animated.gif", "three frames", lambda: animated("GIF"), _AS_STORED),
    Hostile("animated.webp", "three frames", lambda: animated("WEBP"), _AS_STORED),
    Hostile("pages.tif", "three pages", lambda: animated("TIFF"), _AS_STORED),
    Hostile("one_bit.png", "black and white", lambda: encode(rgb().convert("1"), "PNG"), _AS_STORED),
    Hostile("gray_alpha.png", "gray with alpha", lambda: encode(rgb().convert("LA"), "PNG"), _AS_STORED),
    Hostile(
        "palette_alpha.png",
        "a palette with a transparent entry",
        lambda: encode(rgb().quantize(8), "PNG", transparency=3),
        _AS_STORED,
    ),
    Hostile("deep.png", "16-bit gray that uses all its values", lambda: deep(deep_ramp(), "PNG"), _AS_STORED),
    Hostile("deep_rgb.png", "16-bit RGB", lambda: png_rows(deep_rgb()), _AS_STORED),
    Hostile("deep_rgba.png", "16-bit RGB with alpha", lambda: png_rows(deep_rgb(4)), _AS_STORED),
    Hostile("deep_gray_alpha.png", "16-bit gray with alpha", lambda: png_rows(deep_rgb(2)), _AS_STORED),
    Hostile(
        "deep_clear.png",
        "16-bit gray with a transparent level",
        lambda: png_rows(deep_rgb(1), chunk(b"tRNS", bytes(2))),
        _AS_STORED,
    ),
    Hostile("deep_rgb.tif", "16-bit RGB", lambda: tiff(deep_rgb(), {}), _AS_STORED),
    Hostile("white_is_zero.tif", "16-bit gray whose 0 is white", lambda: tiff(deep_rgb(1), {262: 0}), _AS_STORED),
    Hostile(
        "deep_planes.tif",
        "16-bit RGB, a plane for each channel",
        lambda: tiff(deep_rgb(), {}, planes=True),
        _AS_STORED,
    ),
    Hostile(
        "deep_premultiplied.tif",
        "16-bit RGB with premultiplied alpha",
        lambda: tiff(deep_rgb(4), {338: 1}),
        None,
        "that is read wrongly",
    ),
    Hostile("bomb.webp", "a WebP that tells 4,278,190,080 pixels", bomb_webp, None, "over the limit", "bomb"),
    Hostile(
        "deep_rgb.jp2",
        "16-bit RGB, whose white Pillow makes black",
        lambda: jpeg2000.jp2(jpeg2000.codestream([jpeg2000.ramp(16)] * 3, [16] * 3), 3, 16, jpeg2000.RGB),
        None,
        "JPEG 2000 of 3 channels with 16 bits, of which only 8 would be kept",
    ),
    Hostile(
        "mixed.jp2",
        "RGB of 5, 8 and 12 bits",
        lambda: jpeg2000.codestream([jpeg2000.ramp(bits) for bits in (5, 8, 12)], [5, 8, 12]),
        None,
        "JPEG 2000 of 3 channels with 5, 8, 12 bits",
    ),
    Hostile(
        "gray_20.jp2",
        "20-bit gray",
        lambda: jpeg2000.codestream([jpeg2000.ramp(16) + 2**19 - 2**15], [20]),
        None,
        "JPEG 2000 of gray with 20 bits, of which only 16 would be kept",
    ),
    Hostile(
        "palette_16.jp2",
        "a palette of 16-bit colours",
        lambda: jpeg2000.jp2(
            jpeg2000.codestream([jpeg2000.ramp(8) // 128], [8]),
            1,
            8,
            jpeg2000.RGB,
            jpeg2000.palette([(65535, 0, 0), (0, 0, 65535)], 16),
        ),
        None,
        "JPEG 2000 whose palette has 16 bits a colour",
    ),
    Hostile(
        "gray_9.jp2",
        "9-bit gray, which Pillow takes for 8",
        lambda: jpeg2000.jp2(jpeg2000.codestream([jpeg2000.ramp(9)], [9]), 1, 9, jpeg2000.GRAY),
        _AS_STORED,
    ),
    Hostile("one_bit.jp2", "black and white", lambda: jpeg2000.codestream([jpeg2000.ramp(1)], [1]), _AS_STORED),
    Hostile("deep_rgb.ppm", "RGB whose white is 4095", lambda: netpbm(deep_rgb(peak=4095), 4095), _AS_STORED),
    Hostile(
        "deep_text.pgm", "gray as text whose white is 1000", lambda: netpbm(deep_rgb(1, 1000), 1000, True), _AS_STORED
    ),
    Hostile(
        "cut.ppm",
        "half of an RGB whose white is 4095",
        lambda: half(netpbm(deep_rgb(peak=4095), 4095)),
        None,
        "truncated",
        "truncated",
    ),
    Hostile(
        "signed_8.tif",
        "8-bit gray with a sign, whose -1 is no white",
        lambda: tiff(deep_rgb(1), {258: 8, 339: 2}),
        None,
        "int8 gray with values -128..127, whose true range",
        "range",
    ),
    Hostile(
        "unsigned_32.tif",
        "32-bit gray without a sign",
        lambda: tiff(deep_rgb(2), {258: 32, 277: 1}),
        None,
        "uint32 gray with values",
        "range",
    ),
    Hostile("deep_cmyk.tif", "16-bit CMYK", lambda: tiff(deep_rgb(4), {262: 5}), _AS_STORED),
    Hostile(
        "deep_cmyk_planes.tif",
        "16-bit CMYK, a plane for each ink",
        lambda: tiff(deep_rgb(4), {262: 5}, planes=True),
        _AS_STORED,
    ),
    Hostile(
        "deep_planes_deflated.tif",
        "16-bit RGB, a plane for each channel, deflated",
        lambda: tiff(deep_rgb(), {259: 8}, planes=True),
        _AS_STORED,
    ),
    Hostile(
        "float_rgb.tif",
        "RGB of floats",
        lambda: wide_tiff(rgb_pixels().astype(np.float32) / 255),
        None,
        "float32 colour with values 0..1, whose true range",
        "range",
    ),
    Hostile(
        "float_64.tif",
        "gray of 64-bit floats",
        lambda: wide_tiff(_FLOATS.astype(np.float64)[:, :, None]),
        None,
        "float64 gray with values 0..1, whose true range",
        "range",
    ),
    Hostile("ten_bits.tif", "10-bit gray", lambda: packed_tiff(deep_rgb(1, 1023), 10), _AS_STORED),
    Hostile("fourteen_bits.tif", "14-bit RGB", lambda: packed_tiff(deep_rgb(3, 16383), 14), _AS_STORED),
    Hostile(
        "complex.tif",
        "complex numbers",
        lambda: tiff(deep_rgb(4), {258: 64, 339: 6, 262: 1, 277: 1}),
        None,
        "a TIFF of 1 channel of 64 other bits",
    ),
    Hostile("preview_first.tif", "a preview before the picture", preview_tiff, _AS_STORED),
    Hostile("preview_above.tif", "a preview with the picture below it", lambda: preview_tiff(below=True), _AS_STORED),
    Hostile(
        "raw.tif",
        "a camera's raw file, which begins with a preview",
        lambda: preview_tiff(below=True, photometric=32803),
        None,
        "a camera's raw sensor data; develop it",
    ),
    Hostile("no_alpha.bmp", "a BMP whose alpha is 0 throughout", lambda: bmp_32(rgb_pixels(), 0), _AS_STORED),
    Hostile("plain.avif", "AVIF", lambda: encode(rgb(), "AVIF"), _AS_STORED),
    Hostile(
        "twelve.jpg",
        "a JPEG of 12 bits",
        twelve_bit_jpeg,
        None,
        "a JPEG of 12 bits a channel, but only 8 are supported",
    ),
    Hostile(
        "two_bit_clear.png",
        "2-bit gray with a transparent level",
        lambda: png_grays([0, 1, 2, 3], 2, chunk(b"tRNS", b"\x00\x01")),
        (4, 1),
    ),
    Hostile("cut.jp2", "half of a JPEG 2000", lambda: half(encode(rgb(), "JPEG2000")), None, "truncated", "truncated"),
    Hostile(
        "cut_lzw.tif",
        "half of a compressed TIFF",
        lambda: half(encode(rgb(), "TIFF", compression="tiff_lzw")),
        None,
        "truncated",
        "truncated",
    ),
    Hostile(
        "closed.jpg",
        "two thirds of a JPEG, closed with an end marker, which libjpeg fills with gray",
        lambda: closed(encode(rgb(), "JPEG")),
        None,
        "truncated, but closed with an end marker",
        "truncated",
    ),
    Hostile(
        "gray_end.jpg",
        "a whole JPEG whose lower half is just the gray that libjpeg fills with",
        lambda: encode(half_gray(), "JPEG"),
        _AS_STORED,
    ),
    Hostile("animated.png", "three frames", lambda: animated("PNG"), _AS_STORED),
    Hostile("preview.jpg", "a camera's JPEG with a second picture behind it", lambda: animated("MPO"), _AS_STORED),
    Hostile("ycck.jpg", "CMYK stored as YCCK", ycck, _AS_STORED),
    Hostile("sideways_xmp.jpg", "turned by XMP alone", sideways_xmp, _TURNED),
    Hostile("report.dcm", "a DICOM file without a picture", dicom_header, None, "holds no picture"),
    Hostile("one_pixel.png", "1 x 1", lambda: encode(Image.new("RGB", (1, 1)), "PNG"), (1, 1)),
    Hostile("thread.png", "5000 x 1", lambda: encode(Image.new("RGB", (5000, 1)), "PNG"), (5000, 1)),
]


def write_hostile(folder: Path) -> list[Hostile]:
    """Write every hostile picture into `folder`; return the table."""
    folder.mkdir(parents=True, exist_ok=True)
    for item in HOSTILE:
        (folder / item.name).write_bytes(item.make())
    return HOSTILE


def promise(item: Hostile) -> str:
    """Return the row of README.md."""
    outcome = f"decodes to {item.size[0]} x {item.size[1]}" if item.size else f"refused, {item.kind}: `{item.says}`"
    return f"| {item.name} | {item.what} | {outcome} |"


if __name__ == "__main__":
    for item in write_hostile(Path(sys.argv[1])):
        print(promise(item))
