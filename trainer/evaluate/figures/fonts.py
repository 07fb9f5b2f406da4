"""Fonts for figures: find one that has the characters, or use names that any font can show. Never empty boxes."""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.font_manager import FontProperties

_PACKAGE = "pylopdf_fonts_zh_cn"
"""Noto Sans SC (SIL OFL 1.1); the extra `fonts` installs it."""
_REGULAR = range(350, 550)
"""Font weights of normal text."""


def choose_font(texts: Iterable[str]) -> FontProperties | None:
    """Return fonts that together have every character of the texts, or None if this machine has none.

    matplotlib's own font comes first, so that figures look the same where it suffices; then one with the remaining
    characters: the package's, else an installed one.
    """
    from matplotlib.font_manager import FontProperties, findfont

    needed = {ord(letter) for text in texts for letter in text if not letter.isspace()}
    usual = FontProperties()
    rest = needed - _read_characters(findfont(usual))
    if not rest:
        return usual
    for name, path in _list_fonts():
        if rest <= _read_characters(path):
            return FontProperties(family=[usual.get_name(), name])
    return None


@dataclass(frozen=True)
class Lettering:
    """Names of classes in figures, and their fonts; note: why they are not the display names."""

    names: list[str]
    families: list[str]
    note: str | None = None

    def applied(self) -> contextlib.AbstractContextManager[None]:
        """See `apply_fonts`."""
        return apply_fonts(self.families)


@contextlib.contextmanager
def apply_fonts(families: list[str]) -> Iterator[None]:
    """Use these fonts for figures made and saved in the block, without parsing text as formulas."""
    import matplotlib

    log = logging.getLogger("matplotlib.font_manager")
    before = log.level
    log.setLevel(logging.ERROR)  # no warnings about missing bold letters
    try:
        with matplotlib.rc_context({"font.family": families, "text.parse_math": False}):
            yield
    finally:
        log.setLevel(before)


def find_package_font() -> str | None:
    """Return the path of the redistributable font from the extra `fonts`; None if it is not installed."""
    with contextlib.suppress(ModuleNotFoundError):
        return str(importlib.import_module(_PACKAGE).sans_path())
    return None


def letter_texts(texts: Iterable[str]) -> tuple[list[str], Callable[[str], str]]:
    """Return fonts for texts, and a function that escapes characters missing from all fonts."""
    from matplotlib.font_manager import FontProperties, findfont

    font = choose_font(texts)
    if font is not None:
        return font.get_family(), str
    usual = FontProperties()
    known = _read_characters(findfont(usual)) | {ord("\n")}

    def escape(text: str) -> str:
        return "".join(letter if ord(letter) in known else ascii(letter)[1:-1] for letter in text)

    return usual.get_family(), escape


def letter_classes(display_names: list[str], classes: list[str]) -> Lettering:
    """Return display names if a font has their characters, else class names, else class numbers."""
    for names in (display_names, classes):
        font = choose_font(names)
        if font is not None:
            note = None if names is display_names else _explain(display_names, "their keys")
            return Lettering(names, font.get_family(), note)
    font = choose_font("class 0123456789")
    assert font is not None  # matplotlib's font has these
    numbers = [f"class {number}" for number in range(len(classes))]
    return Lettering(numbers, font.get_family(), _explain(display_names, "numbers"))


def _explain(display_names: list[str], instead: str) -> str:
    lacking = next((name for name in display_names if choose_font([name]) is None), display_names[0])
    return (
        f"figures name the classes by {instead}: no font on this machine has all characters of the display names, "
        f"such as '{lacking}'; pip install 'shardline[fonts]' adds one for Chinese"
    )


def _list_fonts() -> Iterator[tuple[str, str]]:
    """Yield name and path of upright fonts of normal weight, the package's first, then sorted by name."""
    from matplotlib import get_data_path
    from matplotlib.font_manager import fontManager

    path = find_package_font()
    if path is not None:
        if all(entry.fname != path for entry in fontManager.ttflist):
            fontManager.addfont(path)
        yield next((entry.name, path) for entry in fontManager.ttflist if entry.fname == path)
    # Skip matplotlib's other fonts: symbols at letters' codes, and boxes for every character.
    own = get_data_path()
    upright = [entry for entry in fontManager.ttflist if entry.style == "normal" and _is_regular(entry.weight)]
    regular = [entry for entry in upright if not entry.fname.startswith(own) and "Last Resort" not in entry.name]
    yield from sorted({entry.name: entry.fname for entry in regular}.items())


def _is_regular(weight: Any) -> bool:
    return weight in ("normal", "regular", "book", "medium") or (isinstance(weight, int) and weight in _REGULAR)


def _read_characters(path: str) -> set[int]:
    from matplotlib.font_manager import get_font

    return set(get_font(path).get_charmap())
