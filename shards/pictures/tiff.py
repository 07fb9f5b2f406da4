"""TIFF layouts that Pillow does not know or misreads, read to pixels; `tiff_pages` finds the pages."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from shards.errors import DecodeError
from shards.pictures.deep import Deep
from shards.pictures.signature import is_tiff, refuse_bomb
from shards.pictures.tiff_pages import Page, Tags, read_pages

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_OFFSETS, _ORIENTATION, _SAMPLES, _ROWS, _SIZES, _PLANES, _PREDICTOR = 273, 274, 277, 278, 279, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES, _EXTRA, _FORMAT = 322, 323, 324, 325, 338, 339
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_COLOURS = {0: (1, "L"), 1: (1, "L"), 2: (3, "RGB"), 5: (4, "CMYK")}
"""By photometric interpretation: channels without alpha, and Pillow's mode."""
_WIDE = {(_FLOAT, bits) for bits in (16, 32, 64)} | {(kind, bits) for kind in (_UNSIGNED, _SIGNED) for bits in (32, 64)}
_UNPACKED: Final = frozenset([1, 5, 8, 32773, 32946, 34925, 50000])
"""Compressions that work on plain bytes: none, LZW, deflate, PackBits, LZMA, Zstandard."""
_BLOCK = 1 << 22
"""Bits that are unpacked to bytes at a time."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the values are stored. channels: channels that are kept; samples: samples stored for each pixel."""

    width: int
    height: int
    bits: int
    kind: int
    samples: int
    channels: int
    apart: bool
    order: str

    @property
    def stored(self) -> np.dtype[Any]:
        """The type of a value in the file; for 9 to 15 bits, of the unpacked value."""
        letter = {_UNSIGNED: "u", _SIGNED: "i", _FLOAT: "f"}[self.kind]
        return np.dtype(f"{self.order}{letter}{max(8, 1 << (self.bits - 1).bit_length()) // 8}")


def read_odd_tiff(data: bytes, max_pixels: int) -> tuple[Deep, int] | None:
    """Return the values and the orientation of the first page if Pillow cannot read it; None for all other files.

    These are 16-bit planes and gray with alpha, 9 to 15 bits, 64-bit and half floats, and colour of floats, signed or
    more than 16 bits. Big-endian ones also: more than 8 bits in a BigTIFF, which Pillow does not open, and compressed
    signed or 32-bit gray, whose bytes Pillow swaps.

    Raises:
        DecodeError: Such a page in an unsupported form, truncated, or over the pixel limit.
    """
    if not is_tiff(data):
        return None
    pages = read_pages(data)
    layout = _find_layout(pages[0]) if pages else None
    if layout is None:
        return None
    tags = pages[0].tags
    _refuse_unread(tags, layout)
    refuse_bomb(layout.width, layout.height, max_pixels)
    values = _read_values(data, tags, layout)
    return _make_deep(values, tags, layout), tags.get(_ORIENTATION, (1,))[0]


def _find_layout(page: Page) -> _Layout | None:
    """Return the layout of a page if this module is to read it, else None."""
    tags = page.tags
    photometric = tags.get(_PHOTOMETRIC, (1,))[0]
    samples = tags.get(_SAMPLES, (1,))[0]
    bits, kinds = set(tags.get(_BITS, (1,))), set(tags.get(_FORMAT, (_UNSIGNED,)))
    if photometric not in _COLOURS or len(bits) != 1 or len(kinds) != 1 or not {_WIDTH, _HEIGHT} <= tags.keys():
        return None
    colours = _COLOURS[photometric][0]
    depth, kind, apart = bits.pop(), kinds.pop(), samples > 1 and tags.get(_PLANES, (1,))[0] == 2
    odd = _is_odd(depth, kind, samples, apart) or _is_foreign(depth, kind, page)
    if not odd or not colours <= samples <= colours + 1:
        return None
    with_alpha = samples > colours and tags.get(_EXTRA, (0,))[0] in (1, 2)
    width, height = tags[_WIDTH][0], tags[_HEIGHT][0]
    return _Layout(width, height, depth, kind, samples, colours + with_alpha, apart, page.order)


def _is_odd(bits: int, kind: int, samples: int, apart: bool) -> bool:
    if kind == _UNSIGNED and bits == 16:
        return apart or samples == 2
    if kind == _UNSIGNED and 8 < bits < 16:
        return bits != 12 or samples > 1
    if kind == _SIGNED and bits in (8, 16):
        return samples > 1
    return (kind, bits) in _WIDE and (samples > 1 or bits == 64 or (kind, bits) == (_FLOAT, 16))


def _is_foreign(bits: int, kind: int, page: Page) -> bool:
    known = (kind, bits) in {*_WIDE, (_SIGNED, 16)} or (page.big and (kind, bits) == (_UNSIGNED, 16))
    return page.order == ">" and known


def _refuse_unread(tags: Tags, layout: _Layout) -> None:
    compression, predictor = tags.get(_COMPRESSION, (1,))[0], tags.get(_PREDICTOR, (1,))[0]
    what = ""
    if layout.channels > _COLOURS[tags.get(_PHOTOMETRIC, (1,))[0]][0] and tags[_EXTRA][0] == 1:
        what = "premultiplied alpha"
    elif compression not in _UNPACKED:
        what = f"compression {compression}"
    elif tags.get(_FILL_ORDER, (1,))[0] != 1:
        what = "its bits in reverse order"
    elif predictor not in ((1,) if layout.bits % 8 else (1, 2, 3) if layout.kind == _FLOAT else (1, 2)):
        what = f"predictor {predictor}"
    elif layout.channels >= 4 and tags[_PHOTOMETRIC][0] == 5 and (layout.bits, layout.kind) != (16, _UNSIGNED):
        what = "CMYK of other than 8 or 16 bits"
    if what:
        kinds = {_UNSIGNED: "unsigned", _SIGNED: "signed", _FLOAT: "float"}
        raise DecodeError(
            f"the picture is a TIFF of {layout.samples} channel{'s' * (layout.samples > 1)} of {layout.bits} "
            f"{kinds[layout.kind]} bits with {what}, which is not supported; store it uncompressed, as gray or RGB "
            "of 16 bits"
        )


def _read_values(data: bytes, tags: Tags, layout: _Layout) -> npt.NDArray[Any]:
    """Return the stored values, [H, W, C], in native byte order."""
    tiled = _TILE_OFFSETS in tags
    across, down = layout.width, min(tags.get(_ROWS, (layout.height,))[0], layout.height)
    if tiled:
        across, down = tags[_TILE_WIDTH][0], tags[_TILE_HEIGHT][0]
    if not (0 < across <= 2 * layout.width + 4096 and 0 < down <= 2 * layout.height + 4096):
        raise DecodeError(
            f"the picture is a TIFF whose tiles or strips of {across:,} x {down:,} pixels do not fit into it"
        )
    offsets, sizes = tags[_TILE_OFFSETS if tiled else _OFFSETS], tags[_TILE_SIZES if tiled else _SIZES]
    columns, rows = -(-layout.width // across), -(-layout.height // down)
    planes = layout.channels if layout.apart else 1
    values = np.zeros((layout.height, layout.width, layout.channels), layout.stored.newbyteorder("="))
    if len(offsets) < planes * columns * rows or len(sizes) < len(offsets):
        raise _cut(data)
    for part in range(planes * columns * rows):
        plane, place = divmod(part, columns * rows)
        top, left = place // columns * down, place % columns * across
        height = down if tiled else min(down, layout.height - top)
        packed = data[offsets[part] : offsets[part] + sizes[part]]
        block = _unpack(packed, tags, layout, across, height)
        if block is None:
            raise _cut(data)
        inside = block[: layout.height - top, : layout.width - left]
        target = values[top : top + inside.shape[0], left : left + inside.shape[1]]
        if layout.apart:
            target[:, :, plane] = inside[:, :, 0]
        else:
            target[:] = inside[:, :, : layout.channels]
    return values


def _cut(data: bytes) -> DecodeError:
    return DecodeError(
        f"the picture cannot be decoded ({len(data):,} bytes: truncated; it ends before its last row)", kind="truncated"
    )


def _unpack(packed: bytes, tags: Tags, layout: _Layout, width: int, height: int) -> npt.NDArray[Any] | None:
    """Return [height, width, samples] of a strip or tile, None if it is truncated."""
    samples = 1 if layout.apart else layout.samples
    across = -(-width * samples * layout.bits // 8)
    compression = tags.get(_COMPRESSION, (1,))[0]
    flat = packed if compression == 1 else _decompress(packed, compression, across, height)
    if len(flat) < across * height:
        return None
    rows = np.frombuffer(flat, np.uint8, across * height).reshape(height, across)
    if layout.bits % 8:
        return _spread(rows, width * samples, layout.bits).reshape(height, width, samples)
    if tags.get(_PREDICTOR, (1,))[0] == 3:  # byte-wise differences; the first bytes of all numbers come first
        each = layout.bits // 8
        summed = rows.reshape(height, -1, samples).cumsum(axis=1, dtype=np.uint8).reshape(height, each, -1)
        numbers = np.ascontiguousarray(summed.swapaxes(1, 2)).view(layout.stored.newbyteorder(">"))
        return numbers.reshape(height, width, samples)
    numbers = rows.view(layout.stored).reshape(height, width, samples)
    if tags.get(_PREDICTOR, (1,))[0] == 2:  # differences, which wrap like integers
        whole = np.dtype(f"{layout.order}u{layout.bits // 8}")
        summed = numbers.view(whole).cumsum(axis=1, dtype=whole.newbyteorder("="))
        return summed.view(layout.stored.newbyteorder("="))
    return numbers


def _decompress(packed: bytes, compression: int, across: int, height: int) -> bytes:
    """Return the bytes of a strip or tile, unpacked by libtiff as a gray picture with the same rows."""
    entries = {256: across, 257: height, 258: 8, 259: compression, 262: 1, 277: 1, 278: height, 279: len(packed)}
    start = 8 + 2 + 12 * (len(entries) + 1) + 4
    entries[273] = start
    listing = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    head = b"II*\x00" + struct.pack("<IH", 8, len(entries)) + listing + bytes(4)
    return Image.open(io.BytesIO(head + packed), formats=("TIFF",)).tobytes()


def _spread(rows: npt.NDArray[np.uint8], count: int, bits: int) -> npt.NDArray[np.uint16]:
    """Return uint16[rows, count] from packed numbers of 9 to 15 bits; each row begins on a byte."""
    weights = 1 << np.arange(bits - 1, -1, -1, dtype=np.int64)
    spread = np.empty((len(rows), count), np.uint16)
    step = max(1, _BLOCK // max(1, rows.shape[1] * 8))
    for first in range(0, len(rows), step):
        each = np.unpackbits(rows[first : first + step], axis=1)[:, : count * bits]
        spread[first : first + step] = each.reshape(len(each), count, bits) @ weights
    return spread


def _make_deep(values: npt.NDArray[Any], tags: Tags, layout: _Layout) -> Deep:
    photometric = tags.get(_PHOTOMETRIC, (1,))[0]
    colours, mode = _COLOURS[photometric]
    few = layout.kind == _UNSIGNED and layout.bits < 16
    declared = (0.0, 65535.0) if mode == "CMYK" else (0.0, 2.0**layout.bits - 1) if few else None
    if layout.channels == 1:
        return Deep(values[:, :, 0], mode, declared, inverted=photometric == 0)
    if layout.channels > colours:
        values = _scale_alpha(values, layout)
        mode += "A"
    return Deep(values, mode, declared, inverted=photometric == 0)


def _scale_alpha(values: npt.NDArray[Any], layout: _Layout) -> npt.NDArray[Any]:
    """Return the values with alpha scaled to 0..65535, as `Deep` expects."""
    opaque = {_FLOAT: 1.0, _UNSIGNED: 2.0**layout.bits - 1, _SIGNED: 2.0 ** (layout.bits - 1) - 1}[layout.kind]
    if opaque == 65535:
        return values
    alpha = np.rint(np.clip(values[:, :, -1].astype(np.float64) / opaque, 0, 1) * 65535)
    wide = np.uint16 if layout.kind == _UNSIGNED and layout.bits < 16 else np.float64
    return np.dstack([values[:, :, :-1].astype(wide), alpha.astype(wide)])
