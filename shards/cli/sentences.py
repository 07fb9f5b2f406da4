"""Phrases shared by many messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def find_near(word: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Return at most `most` known words close to a mistyped `word`, the closest first; case is ignored.

    >>> find_near("Peek_lr ", ["name", "peak_lr"]), find_near("x", ["name"])
    (['peak_lr'], [])
    """
    folded: dict[str, str] = {}
    for each in known:
        folded.setdefault(each.casefold(), each)
    return [folded[each] for each in difflib.get_close_matches(word.casefold().strip(), folded, most)]


def suggest(word: str, known: Iterable[str], before: str = "; ", otherwise: str = "", most: int = 1) -> str:
    """Return `before` and "did you mean ...?" for the known words closest to `word`, or `otherwise` if none is close.

    >>> suggest("bee", ["ants", "bees"]), suggest("wasp", ["ants", "bees"], otherwise="; give one of them")
    ("; did you mean 'bees'?", '; give one of them')
    """
    near = " or ".join(f"'{each}'" for each in find_near(word, known, most))
    return f"{before}did you mean {near}?" if near else otherwise


def count_things(number: int, one: str, several: str = "") -> str:
    """Return a number with its noun, or its noun and verb, in singular or plural.

    >>> count_things(1, "path"), count_things(2_000, "path"), count_things(1, "link is", "links are")
    ('1 path', '2,000 paths', '1 link is')
    """
    return f"1 {one}" if number == 1 else f"{number:,} {several or one + 's'}"


def join_some(names: Sequence[str], most: int = 10) -> str:
    """Return names separated by commas; beyond `most`, only their number.

    >>> join_some(["ant", "bee"]), join_some(["ant", "bee", "wasp", "fly"], most=3)
    ('ant, bee', 'ant, bee, wasp and 1 more')
    """
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")
