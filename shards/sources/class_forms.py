"""What names have in common that look alike, and the other forms that one path may have."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?", re.ASCII)


def fold_class(name: str) -> str:
    """Return what two names that look alike have in common: without regard to Unicode's form, case, characters that are
    not seen and blanks around it, and as a number where it is one.

    >>> [fold_class(name) for name in ("Cat\\u200b ", "cat", "01", "1.0", "l")]
    ['cat', 'cat', '1', '1', 'l']
    """
    seen = "".join(each for each in unicodedata.normalize("NFC", name) if unicodedata.category(each) != "Cf")
    words = unicodedata.normalize("NFC", " ".join(seen.split()).casefold())
    return str(Decimal(words).normalize()) if _NUMBER.fullmatch(words) else words


def list_forms(path: str) -> list[str]:
    """Return a path as it stands, then with accents composed as most systems write them, then apart as macOS did.

    >>> [len(form) for form in list_forms("caf\\u00e9")], list_forms("cafe")
    ([4, 5], ['cafe'])
    """
    return list(dict.fromkeys([path, unicodedata.normalize("NFC", path), unicodedata.normalize("NFD", path)]))
