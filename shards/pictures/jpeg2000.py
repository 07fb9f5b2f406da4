"""JPEG 2000 headers: the bits of each channel, needed to correct Pillow's pixels or to refuse the picture.

Pillow shifts gray to the top of 8 or 16 bits, and rounds deeper colour to 8 bits in a way that turns white into black.
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
"""Most bits of gray that Pillow reads correctly; above, rounding turns white into black as well."""


@dataclass(frozen=True, slots=True)
class Channel:
    """bits: 1..38. signed: whether the values are signed."""

    bits: int
    signed: bool


@dataclass(frozen=True, slots=True)
class Header:
    """channels: from the codestream, which decoders obey; the boxes around it may differ. palette: bits of its columns,
    empty if there is none. luma: whether the boxes declare luminance and chroma. start: offset of the codestream."""

    channels: tuple[Channel, ...]
    palette: tuple[int, ...]
    luma: bool
    start: int


def read_header(data: bytes) -> Header:
    """Return the header of a JPEG 2000.

    Raises:
        DecodeError: The header is incomplete; `kind` is truncated.
    """
    try:
        start, palette, luma = (0, (), False) if data.startswith(_CODESTREAM) else _read_boxes(data)
        count = unpack_from(">H", data, start + 40)[0]
        declared = unpack_from(f">{3 * count}B", data, start + 42)[::3]
    except (error, IndexError) as err:
        raise DecodeError(
            f"the picture cannot be decoded ({len(data):,} bytes: truncated; its JPEG 2000 header is incomplete)",
            kind="truncated",
        ) from err
    return Header(tuple(Channel((bits & 0x7F) + 1, bits > 0x7F) for bits in declared), palette, luma, start)


def pick_codestream(data: bytes) -> bytes:
    """Return bytes from which Pillow reads gray correctly: the codestream without its boxes, whose bits Pillow would
    trust.

    With boxes, Pillow treats 9 bits as 8, and white becomes black. Colour and palettes need their boxes.
    """
    if not is_jpeg2000(data):
        return data
    header = read_header(data)
    return data[header.start :] if len(header.channels) == 1 and not header.palette else data


def refuse_lossy(header: Header) -> None:
    """Raise a DecodeError for channels whose bits Pillow does not keep."""
    bits = [channel.bits for channel in header.channels]
    if header.palette and set(header.palette) != {8}:
        raise DecodeError(
            f"the picture is a JPEG 2000 whose palette has {max(header.palette)} bits a colour, but only 8 are read "
            "correctly; convert it to PNG"
        )
    if len(bits) > 1 and max(bits) > 8:
        raise DecodeError(
            f"the picture is a JPEG 2000 of {len(bits)} channels with {_list(bits)} bits, of which only 8 would be "
            "kept and white would become black; convert it to a 16-bit PNG or TIFF"
        )
    if max(bits) > _MOST:
        raise DecodeError(
            f"the picture is a JPEG 2000 of gray with {max(bits)} bits, of which only {_MOST} would be kept and "
            "white would become black; convert it to a 32-bit TIFF and give --range LO,HI"
        )
    if header.luma and min(bits) < 8:
        raise DecodeError(
            f"the picture is a JPEG 2000 of luminance and chroma with {_list(bits)} bits, but only 8 are read "
            "correctly; convert it to PNG"
        )


def _list(bits: list[int]) -> str:
    return str(bits[0]) if len(set(bits)) == 1 else ", ".join(map(str, bits))


def _read_boxes(data: bytes) -> tuple[int, tuple[int, ...], bool]:
    """Return the offset of the codestream, the bit depth of each palette column, and whether the colours are sYCC."""
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
    """Yield the kind of each box, and the start and end of its content."""
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
