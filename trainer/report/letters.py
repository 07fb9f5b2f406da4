"""Chinese letters for a page: those that it uses travel with it, and the reader's machine needs no font for them."""

from __future__ import annotations

import base64
import functools
import io
import re

from trainer.evaluate.figures.fonts import find_package_font

FAMILY = "Letters of this page"
_RANGES = ((0x2E80, 0xD7FF), (0xF900, 0xFAFF), (0xFE30, 0xFE4F), (0xFF00, 0xFFEF), (0x20000, 0x3FFFF))
"""CJK radicals to Hangul, compatibility letters and forms, full and half width, the planes of rarer letters."""
_CHINESE = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in _RANGES) + "]")


def embed_letters(page: str) -> str:
    """Return the CSS of a font with those Chinese letters that a page has, as far as the package's font knows them.

    Empty where the page has none, or where the package of the extra `fonts` is not installed: then the reader's
    fonts are asked, as for all other letters.
    """
    letters = "".join(sorted(set(_CHINESE.findall(page))))
    path = find_package_font()
    if not letters or path is None:
        return ""
    data = base64.b64encode(_cut_font(path, letters)).decode()
    # Styles name it first: behind a font of the reader's, Chromium draws the letters of the first lines as boxes.
    # With its range it is asked for these letters alone, and all others look and stand as they do without it.
    ranges = ",".join(f"U+{first:X}-{last:X}" for first, last in _RANGES)
    source = f'url(data:font/woff;base64,{data}) format("woff")'
    return f'@font-face{{font-family:"{FAMILY}";unicode-range:{ranges};src:{source}}}'


@functools.lru_cache(maxsize=4)  # reading the font's 8 MB takes 0.4 s
def _cut_font(path: str, letters: str) -> bytes:
    """Return a WOFF file of a font with these letters alone, the same bytes every time."""
    from fontTools import subset  # late: most pages need no font

    options = subset.Options(flavor="woff", layout_features=[], recalc_timestamp=False)
    font = subset.load_font(path, options)
    try:
        cutter = subset.Subsetter(options)
        cutter.populate(text=letters)
        cutter.subset(font)
        file = io.BytesIO()
        subset.save_font(font, file, options)
    finally:
        font.close()
    return file.getvalue()
