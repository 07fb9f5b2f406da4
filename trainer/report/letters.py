"""Embed the Chinese characters of a page, so that the reader's machine needs no font for them."""

from __future__ import annotations

import base64
import functools
import io
import re

from trainer.evaluate.figures.fonts import find_package_font

FAMILY = "Letters of this page"
_RANGES = ((0x2E80, 0xD7FF), (0xF900, 0xFAFF), (0xFE30, 0xFE4F), (0xFF00, 0xFFEF), (0x20000, 0x3FFFF))
"""CJK radicals to Hangul, compatibility characters and forms, full and half width, the planes of rarer characters."""
_CHINESE = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in _RANGES) + "]")


def embed_letters(page: str) -> str:
    """Return the CSS of a font with the Chinese characters of a page, as far as the package's font has them.

    Empty if the page has none, or if the package of the extra `fonts` is not installed; then the reader's fonts are
    used.
    """
    letters = "".join(sorted(set(_CHINESE.findall(page))))
    path = find_package_font()
    if not letters or path is None:
        return ""
    data = base64.b64encode(_cut_font(path, letters)).decode()
    # Styles name it first: after a font of the reader's, Chromium draws the characters of the first lines as boxes.
    # Its range limits it to these characters; all others are unaffected.
    ranges = ",".join(f"U+{first:X}-{last:X}" for first, last in _RANGES)
    source = f'url(data:font/woff;base64,{data}) format("woff")'
    return f'@font-face{{font-family:"{FAMILY}";unicode-range:{ranges};src:{source}}}'


@functools.lru_cache(maxsize=4)  # reading the font's 8 MB takes 0.4 s
def _cut_font(path: str, letters: str) -> bytes:
    """Return a WOFF file of a font with only these characters, the same bytes every time."""
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
