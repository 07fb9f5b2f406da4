"""Columns of a list that may hold the split, by name and by values, if no column is named split."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from shards.sources.endings import ENDINGS, read_ending
from shards.sources.headings import fold, rank_near, trim
from shards.sources.split_words import is_split_word, read_splits

FLAGS = frozenset({"0", "1", "0.0", "1.0", "true", "false", "yes", "no", "t", "f", "y", "n"})
"""Values of a column of truth values."""
_FEW = 12
"""Most different values of a column that counts as a split column by its values alone."""
_FLAG = re.compile(
    "(is|in|for|use|used|usefor|usedfor|usedin)?(train|training|val|valid|validation|dev|eval|test|testing|holdout)+"
    "(set|data|flag|mask|split|subset)?"
)
_ANYTHING = frozenset({"mode", "purpose", "stage", "usedfor", "role"})
"""Names of columns that may hold splits or something else: their values decide."""

Rank = tuple[int, int]


def rank_split(name: str, scan: Callable[[], Iterable[str]]) -> Rank | None:
    """Return how likely a column holds the split, the lowest is likeliest; None if nothing suggests it.

    Args:
        name: Of the column.
        scan: Returns its values from the beginning.
    """
    rank = rank_near(name, "split")
    if rank is not None:
        return (0 if find_wrong(scan()) is None else 1, rank)
    key = "".join(re.split(r"[\W_]+", fold(name)))
    few = _list_few(scan())
    if key in _ANYTHING and few and find_wrong(few) is None:
        return 0, _FEW
    if _FLAG.fullmatch(key) and key != "invalid" and few and (are_flags(few) or find_wrong(few) is None):
        return 1, _FEW
    return (0 if find_wrong(few) is None else 1, _FEW) if _hold_splits(few) else None


def find_wrong(values: Iterable[str]) -> str | None:
    """Return the first value that is not a split, None if all are; empty values are ignored.

    >>> find_wrong(["Training", "", "PublicTest"]), find_wrong(["train", "1"])
    (None, '1')
    """
    seen: dict[str, None] = {}
    for value in map(trim, values):
        if value and value not in seen:
            seen[value] = None
            if not read_splits([value], affixes=True):
                return value
    read = read_splits(seen, affixes=True)
    return next((value for value in seen if value not in read), None)


def are_flags(values: Iterable[str]) -> bool:
    """Return whether all values are truth values, at least one; empty values are ignored."""
    known: set[str] = set()
    for value in map(trim, values):
        known |= {value.casefold()} - {""}
        if not known <= FLAGS:
            return False
    return bool(known)


def _list_few(values: Iterable[str]) -> list[str]:
    """Return the different values of a column; none if there are many."""
    seen: dict[str, None] = {}
    for value in map(trim, values):
        if value:
            seen[value] = None
            if len(seen) > _FEW:
                return []
    return list(seen)


def _hold_splits(values: list[str]) -> bool:
    """Return whether values are two or more splits, whatever the column's name.

    Words for splits are enough by themselves; names that begin or end with one need a train, and must not be files.
    """
    words = set(read_splits(filter(is_split_word, values)).values())
    if len(words) > 1 and ("train" in words or all(map(is_split_word, values))):
        return True
    splits = read_splits(values, affixes=True)
    files = any(read_ending(value) in ENDINGS for value in values)
    return not files and len(splits) == len(values) and {"train"} < set(splits.values())
