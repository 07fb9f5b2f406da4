"""JPEG 2000 of any channels and bits, which neither Pillow nor another library of ours writes.

Pillow writes 16-bit gray without loss. At one resolution that is one packet of coded bits, in which nothing depends on
how many bits the header tells but where zero lies; so packets of several channels, one behind another, and a header
that tells their number and bits make a picture of true values. OpenCV reads them equal.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np
from PIL import Image

_SIZ, _COMMENT, _TILE, _DATA = b"\xff\x51", b"\xff\x64", b"\xff\x90", b"\xff\x93"
GRAY, RGB, SYCC, CMYK = 17, 16, 18, 12
"""Colours that a .jp2 may tell."""


def ramp(bits: int, signed: bool = False) -> np.ndarray:
    """Return int64[32, 48]: from the lowest to the highest value of so many bits."""
    low = -(1 << (bits - 1)) if signed else 0
    return np.linspace(low, low + 2**bits - 1, 32 * 48).round().astype(np.int64).reshape(32, 48)


def codestream(channels: Sequence[np.ndarray], bits: Sequence[int], signed: bool = False) -> bytes:
    """Return a bare codestream (.j2k) of [H, W] values, each channel with its number of bits.

    Of more than 16 bits the values must lie within 32768 of the middle.
    """
    head, packets = b"", b""
    for values, depth in zip(channels, bits, strict=True):
        head, packet = _encode(values + 32768 - (0 if signed else 1 << (depth - 1)))
        packets += packet
    siz = head.index(_SIZ) + 4
    told = b"".join(bytes([depth - 1 | (0x80 if signed else 0), 1, 1]) for depth in bits)
    rest = head[siz + int.from_bytes(head[siz - 2 : siz], "big") - 2 :]
    size = head[siz : siz + 34] + struct.pack(">H", len(channels)) + told
    tile = _TILE + struct.pack(">HHIBB", 10, 0, 14 + len(packets), 0, 1)
    return head[: siz - 2] + struct.pack(">H", len(size) + 2) + size + rest + tile + _DATA + packets + b"\xff\xd9"


def _encode(values: np.ndarray) -> tuple[bytes, bytes]:
    """Return the main header and the one packet of 16-bit gray."""
    file = io.BytesIO()
    Image.fromarray(values.astype(np.uint16)).save(file, "JPEG2000", no_jp2=True, num_resolutions=1)
    data = file.getvalue()
    return data[: data.index(_TILE)], data[data.index(_DATA) + 2 : -2]


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


def jp2(stream: bytes, channels: int, bits: int, colour: int, more: bytes = b"", each: Sequence[int] = ()) -> bytes:
    """Return a .jp2 whose boxes tell these channels, bits and colour; `each` channel's bits in a box of their own."""
    header = struct.pack(">IIHBBBB", 32, 48, channels, 255 if each else bits - 1, 7, 0, 0)
    boxes = _box(b"ihdr", header) + (_box(b"bpcc", bytes(depth - 1 for depth in each)) if each else b"")
    boxes += _box(b"colr", struct.pack(">BBBI", 1, 0, 0, colour)) + more
    start = _box(b"jP  ", b"\r\n\x87\n") + _box(b"ftyp", b"jp2 \x00\x00\x00\x00jp2 ")
    return start + _box(b"jp2h", boxes) + _box(b"jp2c", stream)


def palette(colours: Sequence[tuple[int, ...]], bits: int) -> bytes:
    """Return the boxes of a palette, whose entries have so many bits a channel."""
    width = len(colours[0])
    entries = b"".join(struct.pack(f">{width}{'B' if bits <= 8 else 'H'}", *colour) for colour in colours)
    table = struct.pack(">HB", len(colours), width) + bytes([bits - 1] * width) + entries
    return _box(b"pclr", table) + _box(b"cmap", b"".join(struct.pack(">HBB", 0, 1, entry) for entry in range(width)))
