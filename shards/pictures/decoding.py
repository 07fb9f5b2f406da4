"""Versions of decoding: which pictures decode differently from earlier versions, and how messages describe them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from shards.pictures.signature import is_dicom, is_jpeg2000, is_tiff

VERSION: Final = 3
"""Increase it, with a line in CHANGES, whenever the decoder gives other pixels for some picture, or refuses others."""

HEAD: Final = 26
"""Bytes up to and including a PNG's bit depth and colour type."""
_PNG = b"\x89PNG"


@dataclass(frozen=True)
class Change:
    """What decodes differently since a version.

    what: the affected pictures, as in a sentence. is_such: whether a picture with these bytes is affected.
    modes: format -> modes that may be affected, where only format and mode are known; empty means every mode.
    endings: file names that may be affected, where only the name is known.
    rare: common formats in which affected pictures are so rare that none counts as affected unless its bytes are read.
    """

    version: int
    what: str
    is_such: Callable[[bytes], bool]
    modes: Mapping[str, frozenset[str]]
    endings: tuple[str, ...]
    rare: frozenset[str] = frozenset()


def list_changes(version: int) -> list[Change]:
    """Return what has changed since `version`, oldest first."""
    return [change for change in CHANGES if change.version > version]


def is_changed(data: bytes, version: int) -> bool:
    """Return whether a picture may decode differently than with `version`."""
    return any(change.is_such(data) for change in list_changes(version))


def may_be_changed(name: str, kind: str | None, mode: str | None, version: int) -> bool:
    """Return the same for a picture known only by its name and, if recorded, its format and mode.

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
    """Return whether changed pictures are rare in the format of this one, so that its bytes must be read to know.

    >>> is_rare("a/x", "png", 1), is_rare("a/x.PNG", None, 1), is_rare("a/x.jp2", None, 1)
    (True, True, False)
    """
    format_ = kind or name.lower().rpartition(".")[2]
    return all(format_ in change.rare for change in list_changes(version) if _concerns(change, name, kind))


def is_plain_png(head: bytes) -> bool:
    """Return whether the first HEAD bytes belong to a PNG that all versions decode alike: not 2- or 4-bit gray."""
    return head[:4] == _PNG and head[24:26] not in (b"\x02\x00", b"\x04\x00")


def describe_unknown(count: int) -> str:
    """Return a clause saying that a dataset's pictures decode alike, except perhaps `count` gray PNGs."""
    if count == 1:
        return "It holds no such picture, unless its 1 gray PNG is one, which only the file shows"
    return f"It holds no such picture, unless some of its {count:,} gray PNGs are, which only the files show"


def describe_versions(what: str, version: int) -> str:
    """Return a clause about `what`, whose decoding version differs from this program's, with what has changed since.

    >>> describe_versions("the bundle", 9)[:60]
    'the bundle has decoding version 9, and this program knows no'
    """
    if version > VERSION:
        return (
            f"{what} has decoding version {version}, and this program knows no version later than {VERSION}, so "
            "some pictures may decode differently; install the program that made it, or a later one"
        )
    differences = "; ".join(change.what for change in list_changes(version))
    return (
        f"{what} has decoding version {version}; this program has version {VERSION}, which reads some pictures "
        f"differently: {differences}"
    )


def _is_odd_jpeg2000(data: bytes) -> bool:
    from shards.pictures.jpeg2000 import read_header  # late import, as in decode

    return is_jpeg2000(data) and any(channel.bits != 8 for channel in read_header(data).channels)


def _is_deep_netpbm(data: bytes) -> bool:
    if data[:1] != b"P" or data[1:2] not in (b"2", b"3", b"5", b"6"):
        return False
    words = re.sub(rb"#[^\r\n]*", b"", data[:4096]).split(maxsplit=4)
    return len(words) > 3 and words[3].isdigit() and int(words[3]) > 255


def _is_odd_tiff(data: bytes) -> bool:
    from shards.pictures.tiff_pages import read_pages  # late import, as in decode

    pages = read_pages(data) if is_tiff(data) else []
    if not pages:
        return False

    def read_tag(tag: int) -> int:
        return pages[0].tags.get(tag, (1,))[0]

    bits, kind = read_tag(258), read_tag(339)  # 1 is unsigned, 2 signed, 3 float
    planes, inks = read_tag(284) == 2 and read_tag(277) > 1, read_tag(262) == 5
    return (bits == 8 and kind == 2) or (bits == 32 and kind == 1) or (bits == 16 and (planes or inks))


def _is_shallow_png(data: bytes) -> bool:
    return data[:4] == _PNG and not is_plain_png(data[:HEAD]) and b"tRNS" in data


def _is_such(data: bytes) -> bool:
    try:
        odd = _is_odd_jpeg2000(data) or _is_odd_tiff(data)
    except Exception:  # a damaged header: Pillow raises nearly every error type
        return False
    return odd or _is_deep_netpbm(data) or _is_shallow_png(data) or (is_dicom(data) and b"\xff\x4f\xff\x51" in data)


def _is_preview_first(data: bytes) -> bool:
    from shards.pictures.tiff_pages import pick_page  # late import, as in decode

    return pick_page(data)[0] is not data


def _is_foreign_tiff(data: bytes) -> bool:
    """Return whether a TIFF is big-endian, compressed, and of one channel with signed or 32-bit numbers."""
    from shards.pictures.tiff_pages import read_pages  # late import, as in decode

    pages = read_pages(data) if data.startswith(b"MM\x00*") and is_tiff(data) else []
    if not pages:
        return False
    bits, kind, packing, channels = (pages[0].tags.get(tag, (1,))[0] for tag in (258, 339, 259, 277))
    return packing != 1 and channels == 1 and (bits == 32 or (bits, kind) == (16, 2))


def _is_bmp_without_alpha(data: bytes) -> bool:
    """Return whether a BMP declares alpha (32 bits with masks) although every fourth byte is 0."""
    masked = data[:2] == b"BM" and data[28:30] == b"\x20\x00" and data[30:34] != bytes(4)
    return masked and not data[int.from_bytes(data[10:14], "little") + 3 :: 4].strip(b"\x00")


def _is_dicom_without_window(data: bytes) -> bool:
    """Return whether a DICOM file has no window, whose tag is (0028,1050) in either byte order."""
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
            # Modes as version 1 recorded them, and as later versions do.
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
