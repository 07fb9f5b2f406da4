"""What is known of a picture before it is decoded: its format by its first bytes, whatever the file name (DICOM without
a preamble, TIFF, JPEG 2000, HEIC), and whether it is too large."""

from __future__ import annotations

from struct import Struct
from typing import Final, Literal

from shards.errors import DecodeError

DICOM_BYTES: Final = 2180
"""Bytes needed to recognise a DICOM file."""
_HEIC = frozenset([b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"])
_PLAIN = frozenset([b"mif1", b"msf1"])
"""Still pictures and sequences of any codec; most use the codec of HEIC."""
_AVIF = frozenset([b"avif", b"avis"])
_VALUE_KINDS = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
_JPEG2000 = (b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  \r\n\x87\n")
_LONG_KINDS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_TAG, _LENGTH, _SHORT = Struct("<HH").unpack_from, Struct("<I").unpack_from, Struct("<H").unpack_from


def is_dicom(data: bytes) -> bool:
    """Return whether the bytes begin like a DICOM file: DICM after any 128 bytes, or data elements from the start.

    >>> is_dicom(bytes(128) + b"DICM"), is_dicom(b"DICM"), is_dicom(b"\\x08\\x00\\x05\\x00CS\\n\\x00ISO_IR 100")
    (True, False, True)
    """
    return data[128:132] == b"DICM" or _begins_with_elements(data)


def _begins_with_elements(data: bytes) -> bool:
    """Return whether the bytes begin with two consecutive DICOM elements, as files without a preamble do.

    Their groups are 2 or 8 and their tags ascend; if the file ends after the first element, one is enough.
    """
    at, before = 0, (0, -1)
    for _ in range(2):
        if at >= len(data) and at > 0:
            return True
        if len(data) < at + 8:
            return False
        tag = _TAG(data, at)
        if tag[0] not in (2, 8) or tag <= before or (tag[0] == 8 and tag[1] > 0x9500):
            return False
        length = _measure_element(data, at)
        if length is None:
            return False
        at, before = at + length, tag
    return True


def _measure_element(data: bytes, at: int) -> int | None:
    """Return the bytes of an element with its head; None if it is none, or too long for one of the first."""
    kind = data[at + 4 : at + 6]
    if kind in _LONG_KINDS:
        if len(data) < at + 12:
            return None
        head, length = 12, _LENGTH(data, at + 8)[0]
    elif kind in _VALUE_KINDS:
        head, length = 8, _SHORT(data, at + 6)[0]
    else:
        head, length = 8, _LENGTH(data, at + 4)[0]
    return head + length if length % 2 == 0 and 0 < length <= 1024 else None


def is_tiff(data: bytes) -> bool:
    """Return whether the bytes begin like a TIFF or BigTIFF and are not a DICOM file with that in its preamble."""
    return data[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+") and not is_dicom(data)


def is_jpeg2000(data: bytes) -> bool:
    """Return whether the bytes begin like a JPEG 2000, bare (.j2k) or in a file (.jp2).

    >>> is_jpeg2000(b"\\xff\\x4f\\xff\\x51..."), is_jpeg2000(b"\\xff\\xd8\\xff\\xe0")
    (True, False)
    """
    return data.startswith(_JPEG2000)


def find_heif(data: bytes) -> Literal["heic", "avif"] | None:
    """Return whether an ISO media file is heic or avif, None for everything else.

    >>> find_heif(b"\\x00\\x00\\x00\\x1cftypmif1\\x00\\x00\\x00\\x00mif1heic")
    'heic'
    >>> find_heif(b"\\x00\\x00\\x00\\x18ftypavif")
    'avif'
    """
    if data[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    if brands & _AVIF and not brands & _HEIC:
        return "avif"
    return "heic" if brands & (_HEIC | _PLAIN) else None


def refuse_bomb(width: int, height: int, max_pixels: int) -> None:
    """Refuse a picture of more than `max_pixels` pixels.

    Raises:
        DecodeError: The picture is too large.
    """
    if width * height > max_pixels:
        raise DecodeError(
            f"the picture has {width:,} x {height:,} pixels, over the limit of {max_pixels:,}", kind="bomb"
        )
