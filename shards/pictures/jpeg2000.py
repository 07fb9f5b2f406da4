"""JPEG 2000 headers: the bits of each channel, by which Pillow's pixels become true values, or the picture is refused.

Pillow lays gray at the top of 8 or 16 bits, and rounds colour of more bits to 8 in a way that turns white into black.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct, error, unpack_from

from shards.errors import DecodeError
from shards.pictures.signature import is_jpeg2000

_CODESTREAM = b"\xff\x4f\xff\x51"
_BOX = Struct(">I4s").unpack_from
_SYCC = 18
_MOST = 16
"""Bits of gray; Pillow rounds those of more, so that white becomes black there too."""


@dataclass(frozen=True, slots=True)
class Channel:
    """bits: 1..38. signed: whether the values of these bits begin below zero."""

    bits: int
    signed: bool


@dataclass(frozen=True, slots=True)
class Header:
    """channels: as the codestream, which a decoder obeys, tells them; boxes around it may tell others. palette: bits of
    its columns, empty where there is none. luma: whether the boxes tell luminance and chroma. start: of the
    codestream."""

    channels: tuple[Channel, ...]
    palette: tuple[int, ...]
    luma: bool
    start: int


def read_header(data: bytes) -> Header:
    """Return what the header of a JPEG 2000 tells.

    Raises:
        DecodeError: There is no whole header; `kind` is truncated.
    """
    try:
        start, palette, luma = (0, (), False) if data.startswith(_CODESTREAM) else _read_boxes(data)
        count = unpack_from(">H", data, start + 40)[0]
        told = unpack_from(f">{3 * count}B", data, start + 42)[::3]
    except (error, IndexError) as err:
        raise DecodeError(
            f"the picture cannot be decoded ({len(data):,} bytes: truncated; its JPEG 2000 header is not whole)",
            kind="truncated",
        ) from err
    return Header(tuple(Channel((bits & 0x7F) + 1, bits > 0x7F) for bits in told), palette, luma, start)


def pick_codestream(data: bytes) -> bytes:
    """Return the bytes by which Pillow reads gray right: without the boxes, whose bits it would believe.

    It takes 9 bits for 8 there, and white becomes black. Colour and palettes need their boxes.
    """
    if not is_jpeg2000(data):
        return data
    header = read_header(data)
    return data[header.start :] if len(header.channels) == 1 and not header.palette else data


def refuse_lossy(header: Header) -> None:
    """Raise a DecodeError for channels of which Pillow's pixels do not tell all bits."""
    bits = [channel.bits for channel in header.channels]
    if header.palette and set(header.palette) != {8}:
        raise DecodeError(
            f"the picture is a JPEG 2000 whose palette has {max(header.palette)} bits a colour, and only 8 are read "
            "right; convert it to PNG"
        )
    if len(bits) > 1 and max(bits) > 8:
        raise DecodeError(
            f"the picture is a JPEG 2000 of {len(bits)} channels with {_list(bits)} bits, of which 8 would be kept and "
            "white would become black; convert it to a 16-bit PNG or TIFF"
        )
    if max(bits) > _MOST:
        raise DecodeError(
            f"the picture is a JPEG 2000 of gray with {max(bits)} bits, of which {_MOST} would be kept and white would "
            "become black; convert it to a 32-bit TIFF and give --range LO,HI"
        )
    if header.luma and min(bits) < 8:
        raise DecodeError(
            f"the picture is a JPEG 2000 of luminance and chroma with {_list(bits)} bits, and only 8 are read right; "
            "convert it to PNG"
        )


def _list(bits: list[int]) -> str:
    return str(bits[0]) if len(set(bits)) == 1 else ", ".join(map(str, bits))


def _read_boxes(data: bytes) -> tuple[int, tuple[int, ...], bool]:
    """Return the start of the codestream, the bits of the palette's columns, and whether it is luminance and chroma."""
    palette: tuple[int, ...] = ()
    luma = False
    for kind, begin, end in _walk(data, 0, len(data)):
        if kind == b"jp2c":
            return begin, palette, luma
        for inner, first, _ in _walk(data, begin, end) if kind == b"jp2h" else ():
            if inner == b"pclr":
                palette = tuple((bits & 0x7F) + 1 for bits in data[first + 3 : first + 3 + data[first + 2]])
            elif inner == b"colr" and data[first] == 1:
                luma = luma or unpack_from(">I", data, first + 3)[0] == _SYCC
    raise IndexError("no codestream")


def _walk(data: bytes, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each box, and where its content begins and ends."""
    while begin + 8 <= end:
        length, kind = _BOX(data, begin)
        start = begin + 8
        if length == 1:
            length, start = unpack_from(">Q", data, start)[0], start + 8
        length = length or end - begin
        if length < start - begin:
            return
        yield kind, start, min(begin + length, end)
        begin += length
