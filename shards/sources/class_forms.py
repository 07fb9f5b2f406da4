"""A common form for names that look alike, and alternative spellings of a path."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?", re.ASCII)


def fold_class(name: str) -> str:
    """Return a form that is equal for names that look alike: it ignores Unicode form, case, invisible characters and
    outer blanks, and compares numbers by value.

    >>> [fold_class(name) for name in ("Cat\\u200b ", "cat", "01", "1.0", "l")]
    ['cat', 'cat', '1', '1', 'l']
    """
    seen = "".join(each for each in unicodedata.normalize("NFC", name) if unicodedata.category(each) != "Cf")
    words = unicodedata.normalize("NFC", " ".join(seen.split()).casefold())
    return str(Decimal(words).normalize()) if _NUMBER.fullmatch(words) else words


def list_forms(path: str) -> list[str]:
    """Return a path unchanged, then with composed accents (as on most systems), then with decomposed ones (as on
    macOS).

    >>> [len(form) for form in list_forms("caf\\u00e9")], list_forms("cafe")
    ([4, 5], ['cafe'])
    """
    return list(dict.fromkeys([path, unicodedata.normalize("NFC", path), unicodedata.normalize("NFD", path)]))
