"""The pages of a TIFF by their tags, and which page is the picture: some files begin with a small preview of it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from shards.pictures.signature import is_tiff

Tags = dict[int, tuple[int, ...]]
_KINDS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
"""`struct` letters of the integer types."""
_SUB_PAGES, _PAGE_KIND, _OLD_KIND = 330, 254, 255
_MOST = 10_000
"""Limit of pages read; a circular chain has no end."""


@dataclass(frozen=True, slots=True)
class Page:
    """start: offset of its directory. tags: those with integer values. order: byte order, < or >. big: whether it is
    BigTIFF.
    """

    start: int
    tags: Tags
    order: str
    big: bool

    @property
    def is_picture(self) -> bool:
        """Whether it is neither a smaller version of another page nor a mask."""
        return not self.tags.get(_PAGE_KIND, (0,))[0] & 0b101 and self.tags.get(_OLD_KIND, (1,))[0] != 2


def read_pages(data: bytes, most: int = 1) -> list[Page]:
    """Return the first pages of a TIFF, fewer if the file ends or is damaged earlier."""
    pages: list[Page] = []
    try:
        for page in _walk(data):
            pages.append(page)
            if len(pages) == most:
                break
    except (struct.error, IndexError, OverflowError):
        pass  # keep the pages read so far; reading the pixels refuses the rest
    return pages


def pick_page(data: bytes) -> tuple[bytes, int | None]:
    """Return a TIFF that begins with its picture, and the number of pages that are pictures; None if it is not a TIFF.

    Previews, smaller versions and masks are not counted. The picture may be a sub-page of the preview. If there are
    only previews, the first is used.
    """
    if not is_tiff(data):
        return data, None
    pages = read_pages(data, _MOST)
    pictures = [page for page in pages if page.is_picture]
    if not pages or (pictures and pictures[0] is pages[0]):
        return data, len(pictures) or None
    pictures = pictures or _read_below(data, pages[0])
    return (_begin_with(data, pictures[0]) if pictures else data), max(1, len(pictures))


def _walk(data: bytes) -> Iterator[Page]:
    order, big = ("<" if data[:1] == b"I" else ">"), data[2:4] in (b"+\x00", b"\x00+")
    start, seen = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)[0], set[int]()
    while start and start not in seen:
        seen.add(start)
        page, start = _read(data, start, order, big)
        yield page


def _read(data: bytes, start: int, order: str, big: bool) -> tuple[Page, int]:
    """Return a page, and the offset of the next one, 0 if it is the last."""
    count_form, entry, offset = ("Q", "HHQ", "Q") if big else ("H", "HHI", "I")
    width = struct.calcsize(f"{order}{offset}")
    count = struct.unpack_from(f"{order}{count_form}", data, start)[0]
    at, size = start + struct.calcsize(f"{order}{count_form}"), struct.calcsize(f"{order}{entry}") + width
    tags: Tags = {}
    for number in range(min(count, 4096)):
        place = at + number * size
        tag, kind, values = struct.unpack_from(f"{order}{entry}", data, place)
        if kind not in _KINDS or values * struct.calcsize(_KINDS[kind]) > len(data):
            continue
        form = f"{order}{values}{_KINDS[kind]}"
        where = place + size - width
        if struct.calcsize(form) > width:
            where = struct.unpack_from(f"{order}{offset}", data, where)[0]
        tags[tag] = struct.unpack_from(form, data, where)
    end = at + count * size
    following = struct.unpack_from(f"{order}{offset}", data, end)[0] if end + width <= len(data) else 0
    return Page(start, {tag: values for tag, values in tags.items() if values}, order, big), following


def _read_below(data: bytes, page: Page) -> list[Page]:
    """Return the pictures among a page's sub-pages."""
    try:
        below = [_read(data, start, page.order, page.big)[0] for start in page.tags.get(_SUB_PAGES, ())[:_MOST]]
    except (struct.error, IndexError, OverflowError):
        return []
    return [each for each in below if each.is_picture]


def _begin_with(data: bytes, page: Page) -> bytes:
    """Return the file with `page` as its first page."""
    form, place = (f"{page.order}Q", 8) if page.big else (f"{page.order}I", 4)
    return data[:place] + struct.pack(form, page.start) + data[place + struct.calcsize(form) :]
