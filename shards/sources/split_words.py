"""Words in names of folders, names of tars and cells of lists that mean a split."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_EVALUATION = "evaluation"
"""The split for evaluation: val, but test in datasets with another val (training, validation, evaluation)."""
_USUAL = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_WORDS = _USUAL | {
    "training": "train",
    "dev": "val",
    "eval": _EVALUATION,
    "evaluation": _EVALUATION,
    "testing": "test",
    "holdout": "test",
}
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_BEHIND = re.compile("(?<=[a-z])(set|data)$")
_BETWEEN = re.compile(r"[\W\d_]+")


def is_split_word(name: str) -> bool:
    """Return whether a whole name is a word for a split.

    >>> is_split_word("Training"), is_split_word("train_set")
    (True, False)
    """
    return name.lower() in _WORDS


def is_usual(name: str) -> bool:
    """Return whether a name is train, val (valid, validation) or test in any case, which needs no note."""
    return name.lower() in _USUAL


def read_splits(names: Iterable[str], *, affixes: bool = False) -> dict[str, str]:
    """Return the split of each name that means one; other names are missing.

    The names are read together: `eval` (evaluation) is val beside train only, test beside another val, and nothing if
    both val and test exist.

    Args:
        names: Of folders beside each other, or all values of a column.
        affixes: Also read names that begin or end with such a word, set off by a non-letter, a capital, or `set` or
            `data`. A name with words for two splits means none.

    >>> read_splits(["Training", "validation", "evaluation", "cat"])
    {'Training': 'train', 'validation': 'val', 'evaluation': 'test'}
    >>> read_splits(["seg_train", "test-images", "ValidSet", "dev2017", "train_val", "test_tube"], affixes=True)
    {'seg_train': 'train', 'test-images': 'test', 'ValidSet': 'val', 'dev2017': 'val', 'test_tube': 'test'}
    """
    words = {
        name: _WORDS.get(name.lower()) or (_find_affix(name) if affixes else None) for name in dict.fromkeys(names)
    }
    known = {word for word in words.values() if word}
    free = [split for split in ("val", "test") if split not in known]
    evaluation = free[0] if free else None
    found = {name: evaluation if word == _EVALUATION else word for name, word in words.items()}
    return {name: split for name, split in found.items() if split}


def _find_affix(name: str) -> str | None:
    whole = re.sub("hold[-_ ]out", "holdout", _HUMP.sub("_", name).lower())
    words = [_BEHIND.sub("", word) for word in _BETWEEN.split(whole) if word]
    ends = {_WORDS[word] for word in (*words[:1], *words[-1:]) if word in _WORDS}
    return ends.pop() if len(ends) == 1 else None


def describe_splits(splits: Mapping[str, str], what: str) -> list[str]:
    """Return a note if names of splits are unusual, or several names mean one split.

    Args:
        splits: Split by name.
        what: What the names are, for example `the names of folders`.

    >>> describe_splits({"Training": "train", "test": "test"}, "the names of folders")
    ["the names of folders are read as splits: 'Training' as train, 'test' as test"]
    """
    if all(map(is_usual, splits)) and len(set(splits.values())) == len({name.lower() for name in splits}):
        return []
    read = ", ".join(f"'{name}' as {split}" for name, split in sorted(splits.items()))
    return [f"{what} are read as splits: {read}"]
