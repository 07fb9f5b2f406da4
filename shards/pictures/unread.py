"""What to say of bytes in which Pillow finds no picture: some are pictures of more bits, or of another layout."""

from __future__ import annotations

import io

from PIL import TiffImagePlugin

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_NUMBERS = {1: "unsigned", 2: "signed", 3: "float"}
_TIFF = (b"II*\x00", b"MM\x00*")


def name_unread(data: bytes) -> str:
    """Return a phrase that names the picture and what to do, or `no known picture format`.

    >>> name_unread(b"no picture")
    'no known picture format'
    >>> name_unread(b"\\x00\\x00\\x00\\x1cftypheic")
    'HEIC or AVIF, which is not read; convert it to PNG or JPEG'
    """
    if data.startswith(b"\xff\xd8\xff"):
        bits = _find_jpeg_bits(data)
        if bits not in (None, 8):
            return f"a JPEG of {bits} bits a channel, and only 8 are read; convert it to a 16-bit PNG"
    if data.startswith(_TIFF):
        layout = _describe_tiff(data)
        if layout:
            return f"a TIFF of {layout}, which is not read; convert it to gray or RGB of 8 or 16 bits"
    if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypavif"):
        return "HEIC or AVIF, which is not read; convert it to PNG or JPEG"
    return "no known picture format"


def _find_jpeg_bits(data: bytes) -> int | None:
    place = 2
    while place + 4 < len(data) and data[place] == 0xFF:
        if data[place + 1] in _FRAMES:
            return data[place + 4]
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def _describe_tiff(data: bytes) -> str:
    try:
        file = io.BytesIO(data)
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
        file.seek(tags.next)
        tags.load(file)
        bits, kind = tags.get(258, (1,)), _NUMBERS.get(tags.get(339, (1,))[0], "other")
        channels = tags.get(277, 1)
        return f"{channels} channel{'s' * (channels > 1)} of {bits[0]} {kind} bits (photometric {tags.get(262, 1)})"
    except Exception:  # Pillow raises nearly every kind on hostile bytes
        return ""
