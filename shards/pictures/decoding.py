"""Versions of decoding: which pictures come out otherwise than before, and how that is said."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from shards.pictures.signature import is_dicom, is_jpeg2000, is_tiff

VERSION: Final = 3
"""Raise it, with a line in CHANGES, when the decoder gives other pixels of some picture, or refuses another."""

HEAD: Final = 26
"""Bytes up to those that say how many bits a PNG has, and whether it is gray."""
_PNG = b"\x89PNG"


@dataclass(frozen=True)
class Change:
    """What came out otherwise from a version on.

    what: the pictures, as a sentence names them. is_such: whether the bytes of a picture are one of them.
    modes: where only format and mode of a picture are known, by format those that may be one; empty allows every mode.
    endings: where only its name is known, those that may be one.
    rare: formats of everyday of which hardly any picture is one, so that none counts as one without a closer look.
    """

    version: int
    what: str
    is_such: Callable[[bytes], bool]
    modes: Mapping[str, frozenset[str]]
    endings: tuple[str, ...]
    rare: frozenset[str] = frozenset()


def list_changes(version: int) -> list[Change]:
    """Return what has changed since a version, oldest first."""
    return [change for change in CHANGES if change.version > version]


def is_changed(data: bytes, version: int) -> bool:
    """Say whether the bytes are of a picture that may come out otherwise than by `version`."""
    return any(change.is_such(data) for change in list_changes(version))


def may_be_changed(name: str, kind: str | None, mode: str | None, version: int) -> bool:
    """Say the same of a picture of which only its name is known, and format and mode where somebody recorded them.

    >>> may_be_changed("a/x.jp2", None, None, 1), may_be_changed("a/x.jpg", None, None, 1)
    (True, False)
    >>> may_be_changed("a/x", "bmp", "RGB", 1), may_be_changed("a/x.jp2", "jpeg2000", "RGB", VERSION)
    (False, False)
    """
    for change in list_changes(version):
        modes = change.modes.get(kind or "", frozenset())
        if _concerns(change, name, kind) and (kind is None or not modes or mode in modes):
            return True
    return False


def _concerns(change: Change, name: str, kind: str | None) -> bool:
    return name.lower().endswith(change.endings) if kind is None else kind in change.modes


def is_rare(name: str, kind: str | None, version: int) -> bool:
    """Say of a picture that may be changed whether others of its format hardly ever are, so that it takes a look.

    >>> is_rare("a/x", "png", 1), is_rare("a/x.PNG", None, 1), is_rare("a/x.jp2", None, 1)
    (True, True, False)
    """
    format_ = kind or name.lower().rpartition(".")[2]
    return all(format_ in change.rare for change in list_changes(version) if _concerns(change, name, kind))


def is_plain_png(head: bytes) -> bool:
    """Say whether the first HEAD bytes of a picture are of a PNG that is read as ever: neither 2 nor 4 bits of gray."""
    return head[:4] == _PNG and head[24:26] not in (b"\x02\x00", b"\x04\x00")


def describe_untold(count: int) -> str:
    """Return a clause about a dataset in which `count` pictures are of a rare kind or not, which nothing tells."""
    if count == 1:
        return "It holds no such picture, unless 1 gray PNG is one, which only its file would tell"
    return f"It holds no such picture, unless one of {count:,} gray PNG is one, which only their files would tell"


def describe_versions(what: str, version: int) -> str:
    """Return a clause about `what` that has a version which is not this program's, with what changed since.

    >>> describe_versions("the bundle", 9)[:60]
    'the bundle has decoding version 9, and this program knows no'
    """
    if version > VERSION:
        return (
            f"{what} has decoding version {version}, and this program knows no later one than {VERSION}, so some "
            "pictures may come out otherwise; install the program that made it, or a later one"
        )
    told = "; ".join(change.what for change in list_changes(version))
    return f"{what} has decoding version {version}; version {VERSION}, which this program has, reads otherwise: {told}"


def _is_odd_jpeg2000(data: bytes) -> bool:
    from shards.pictures.jpeg2000 import read_header  # late, as in decode

    return is_jpeg2000(data) and any(channel.bits != 8 for channel in read_header(data).channels)


def _is_deep_netpbm(data: bytes) -> bool:
    if data[:1] != b"P" or data[1:2] not in (b"2", b"3", b"5", b"6"):
        return False
    words = re.sub(rb"#[^\r\n]*", b"", data[:4096]).split(maxsplit=4)
    return len(words) > 3 and words[3].isdigit() and int(words[3]) > 255


def _is_odd_tiff(data: bytes) -> bool:
    from shards.pictures.tiff_pages import read_pages  # late, as in decode

    pages = read_pages(data) if is_tiff(data) else []
    if not pages:
        return False

    def tell(tag: int) -> int:
        return pages[0].tags.get(tag, (1,))[0]

    bits, kind = tell(258), tell(339)  # 1 is unsigned, 2 signed, 3 float
    planes, inks = tell(284) == 2 and tell(277) > 1, tell(262) == 5
    return (bits == 8 and kind == 2) or (bits == 32 and kind == 1) or (bits == 16 and (planes or inks))


def _is_shallow_png(data: bytes) -> bool:
    return data[:4] == _PNG and not is_plain_png(data[:HEAD]) and b"tRNS" in data


def _is_such(data: bytes) -> bool:
    try:
        odd = _is_odd_jpeg2000(data) or _is_odd_tiff(data)
    except Exception:  # a damaged header: Pillow raises nearly every kind
        return False
    return odd or _is_deep_netpbm(data) or _is_shallow_png(data) or (is_dicom(data) and b"\xff\x4f\xff\x51" in data)


def _is_preview_first(data: bytes) -> bool:
    from shards.pictures.tiff_pages import pick_page  # late, as in decode

    return pick_page(data)[0] is not data


def _is_foreign_tiff(data: bytes) -> bool:
    """Say whether a TIFF is big-endian, compressed, and of one channel with signed or 32-bit numbers."""
    from shards.pictures.tiff_pages import read_pages  # late, as in decode

    pages = read_pages(data) if data.startswith(b"MM\x00*") and is_tiff(data) else []
    if not pages:
        return False
    bits, kind, packing, channels = (pages[0].tags.get(tag, (1,))[0] for tag in (258, 339, 259, 277))
    return packing != 1 and channels == 1 and (bits == 32 or (bits, kind) == (16, 2))


def _is_bmp_without_alpha(data: bytes) -> bool:
    """Say whether a BMP says that it has alpha (its 32 bits come with masks), and every fourth byte is 0."""
    masked = data[:2] == b"BM" and data[28:30] == b"\x20\x00" and data[30:34] != bytes(4)
    return masked and not data[int.from_bytes(data[10:14], "little") + 3 :: 4].strip(b"\x00")


def _is_dicom_without_window(data: bytes) -> bool:
    """Say whether a DICOM file has no window, whose tag is (0028,1050) in either order of bytes."""
    return is_dicom(data) and b"\x28\x00\x50\x10" not in data and b"\x00\x28\x10\x50" not in data


def _is_such_3(data: bytes) -> bool:
    tests = (_is_preview_first, _is_foreign_tiff, _is_bmp_without_alpha, _is_dicom_without_window)
    return any(test(data) for test in tests)


CHANGES: Final = (
    Change(
        2,
        "JPEG 2000 of other than 8 bits (colour of more, whose white became black, is refused), PGM and PPM of more "
        "than 8, TIFF of signed bytes, unsigned 32 bits, 16-bit CMYK or planes, PNG of 2 or 4 bits with a transparent "
        "gray, DICOM whose JPEG 2000 has more bits than it says",
        _is_such,
        {
            "jpeg2000": frozenset(),
            # As version 1 recorded them, and as later ones do.
            "ppm": frozenset({"I", "RGB", "RGB;16"}),
            "tiff": frozenset({"L", "I", "CMYK", "CMYK;16", "RGB;16", "RGBA;16"}),
            "png": frozenset({"L"}),
            "dicom": frozenset(),
        },
        (".jp2", ".j2k", ".pgm", ".ppm", ".tif", ".tiff", ".png", ".dcm"),
        rare=frozenset({"png"}),
    ),
    Change(
        3,
        "TIFF with a preview before the picture or with compressed big-endian numbers of 32 or signed 16 bits, BMP "
        "whose alpha is 0 throughout, DICOM of 9 to 15 signed or rescaled bits that has no window and uses half of "
        "them (it is refused)",
        _is_such_3,
        {
            "tiff": frozenset(),
            "bmp": frozenset({"RGBA"}),
            "dicom": frozenset({"MONOCHROME1", "MONOCHROME2"}),
        },
        (".tif", ".tiff", ".bmp", ".dcm", ".dic", ".dicom", ".ima"),
    ),
)
