"""The meaning of folders above pictures: as the user gives it, or by their names and content."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shards.errors import UsageError
from shards.sources.ambiguity import refuse_same_inside
from shards.sources.pattern import Pattern, Place
from shards.sources.split_words import describe_splits, is_split_word, is_usual, read_splits

Parts = tuple[str, ...]
CLASSES = Pattern(("class",))
SPLITS = Pattern(("split", "class"))
NAMED = 3
"""Folders that a message names."""


@dataclass(frozen=True)
class Reading:
    """A meaning for every folder of a tree.

    splits: split by name of the split folder.
    doubled: split folders that contain only one folder of the same name, as unpacked archives do.
    guessed: whether names read as splits could also be classes.
    """

    pattern: Pattern
    splits: Mapping[str, str]
    doubled: frozenset[str] = frozenset()
    guessed: bool = False
    notes: list[str] = field(default_factory=list)

    def place(self, parts: Parts) -> Place | None:
        """Return class and split of a folder, None if its pictures are left out."""
        return self.pattern.place(self._shorten(parts), self.splits)

    def list_inside(self, parts: Parts) -> Parts:
        """Return the folders between the last meaningful one and the pictures."""
        return self._shorten(parts)[len(self.pattern.words) :]

    def _shorten(self, parts: Parts) -> Parts:
        return (parts[0], *parts[2:]) if parts and parts[0] in self.doubled else parts


def read_as(folders: Collection[Parts], pattern: Pattern) -> Reading:
    """Return the meaning of folders according to the pattern.

    With split/class, a doubled folder counts once, as it does without --layout; a pattern with a word for
    the doubled folder (split/any/class) is applied as written.
    """
    doubled = _find_doubled(folders) if pattern.words[:2] == ("split", "class") else frozenset()
    draft = Reading(pattern, {}, doubled)
    shortened = [draft._shorten(parts) for parts in folders]
    names = {pattern.name_split(parts) for parts in shortened if pattern.fits(parts)}
    splits = read_splits(sorted(name for name in names if name), affixes=True)
    return Reading(pattern, splits, doubled, False, describe_splits(splits, "the names of folders"))


def read_freely(where: Path, folders: Collection[Parts]) -> Reading:
    """Return the meaning of folders by themselves: splits above classes, or classes.

    Raises:
        UsageError: They have several possible meanings; the message has an option for each.
    """
    tops: dict[str, bool] = {}
    for parts in folders:
        if parts:
            tops[parts[0]] = tops.get(parts[0], False) or len(parts) > 1
    splits = _choose_splits(where, tops)
    # A folder with pictures directly in it can still be a split: its pictures are then reported as left out.
    doubled = _find_doubled([parts for parts in folders if parts and parts[0] in splits])
    guessed = not all(map(is_usual, splits))
    pattern = SPLITS if splits else CLASSES
    reading = Reading(pattern, splits, doubled, guessed, describe_splits(splits, "the names of folders"))
    refuse_same_inside(where, pattern, _list_inside(reading, folders))
    return reading


def _list_inside(reading: Reading, folders: Collection[Parts]) -> dict[str, set[str]]:
    """Return by class the names of the folders directly in it, `` for pictures directly in the class."""
    inside: dict[str, set[str]] = {}
    for parts in folders:
        place = reading.place(parts)
        if place:
            inside.setdefault(place[0], set()).add((*reading.list_inside(parts), "")[0])
    return inside


def _find_doubled(folders: Collection[Parts]) -> frozenset[str]:
    """Return the top folders whose pictures are all in one subfolder that means the same split."""
    inside: dict[str, set[str]] = {}
    for parts in folders:
        if parts:
            inside.setdefault(parts[0], set()).add((*parts[1:], "")[0])
    deep = {parts[0] for parts in folders if len(parts) > 2}
    return frozenset(top for top, names in inside.items() if top in deep and len(names) == 1 and _agree(top, *names))


def _agree(top: str, inner: str) -> bool:
    splits = read_splits([top, inner], affixes=True)
    return top.casefold() == inner.casefold() or (is_split_word(inner) and len({*splits.values()}) == 1 < len(splits))


def _choose_splits(where: Path, tops: Mapping[str, bool]) -> dict[str, str]:
    """Return the split of each top folder; empty if they are classes.

    tops: Top folder -> whether it contains folders with pictures.
    """
    splits = read_splits(sorted(tops), affixes=True)
    usual = [name for name in splits if is_usual(name)]
    others = sorted(set(tops) - set(splits))
    if others:
        _refuse_mixture(where, tops, splits, others)
        return {}
    if not usual and "train" not in splits.values():
        return {}  # without train there are no splits: these words are also names of classes
    if not all(map(is_split_word, splits)):
        _refuse_doubles(where, splits)
    if len(usual) < len(splits) and not any(tops.values()):
        raise UsageError(
            f"{where}: the folders {_quote(splits)} read as splits, but there are no class folders in them; put the "
            f"pictures of each class into a subfolder named after it, or give --layout {CLASSES} if they are the "
            "classes, or --unlabelled to use the pictures without labels"
        )
    return splits


def _refuse_mixture(where: Path, tops: Mapping[str, bool], splits: Mapping[str, str], others: Sequence[str]) -> None:
    """Raise if only some of the top folders are splits; a single such word may also be part of a class name."""
    usual = any(map(is_usual, splits))
    word = any(is_split_word(name) and tops[name] for name in splits)
    deep = {split for name, split in splits.items() if tops[name]}
    if not (usual or word or ("train" in deep and len(deep) > 1)):
        return
    split = f"give --layout {SPLITS} to use only the splits and leave {_quote(others)} out, or" if deep else "give"
    raise UsageError(
        f"{where} mixes split folders with '{others[0]}'; either every subfolder is a split (train, val, test) or "
        f"every subfolder is a class, and {_quote(splits)} read as splits: {split} --layout {CLASSES} if all are "
        "classes"
    )


def _refuse_doubles(where: Path, splits: Mapping[str, str]) -> None:
    """Raise if two folders mean the same split and one of their names contains more than that."""
    for split in dict.fromkeys(splits.values()):
        names = [name for name in splits if splits[name] == split]
        if len(names) > 1 and not all(map(is_split_word, names)):
            raise UsageError(
                f"{where}: the folders {_quote(names)} all read as {split}, so it is unclear which pictures belong "
                f"to it; keep one folder for each of train, val and test, or give --layout {CLASSES} if they are "
                "the classes"
            )


def _quote(names: Collection[str]) -> str:
    shown = [f"'{name}'" for name in sorted(names)[:NAMED]]
    return ", ".join(shown) + (", ..." if len(names) > NAMED else "")
