"""Pictures, classes and splits by file names alone; no file is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shards.cli.sentences import count_things
from shards.errors import UsageError
from shards.sources.class_forms import fold_class
from shards.sources.endings import ENDINGS, UNREAD, is_ignored, read_ending
from shards.sources.model import Source
from shards.sources.pattern import Pattern
from shards.sources.reading import CLASSES, Parts, Reading, read_as, read_freely
from shards.sources.split_words import is_split_word


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a folder or archive: its name with `/`; size, stamp and offset as in `Source`.

    picture: whether it is a picture by its content, whatever its name.
    """

    name: str
    size: int
    stamp: int = 0
    offset: int = 0
    picture: bool = False


@dataclass(frozen=True)
class Layout:
    """Pictures sorted by name, sorted classes, files left out by ending, and notes for the user.

    lost: name of a class folder without a readable picture -> what is in it.
    """

    sources: list[Source]
    classes: list[str]
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)


def lay_out(
    where: Path,
    entries: Iterable[Entry],
    *,
    unlabelled: bool = False,
    wrapped: bool = False,
    pattern: Pattern | None = None,
    folders: Iterable[str] = (),
    incomplete: bool = False,
) -> Layout:
    """Return the pictures among `entries`, with class and split by their folders.

    Folders named like splits are splits; all others are classes, and everything below a class belongs to it. Pictures
    outside class folders are left out with a note.

    Args:
        where: The source, for error messages.
        entries: Files in any order, hidden ones included.
        unlabelled: Take every picture, without a label, as split `all`.
        wrapped: Ignore a folder around all class or split folders, as archives have.
        pattern: The meaning of folders, if the user gives it.
        folders: Names of folders, as far as known, empty ones included.
        incomplete: Classes may be missing, see `find_sources`.

    Raises:
        UsageError: No pictures, only one class, splits beside classes, classes that differ between splits, or folders
            with several possible meanings.
    """
    read = _Folders(where, pattern)
    for entry in entries:
        read.add(entry)
    sources = read.take_all() if unlabelled else read.take_classes(wrapped)
    sources.sort(key=lambda source: source.name)
    if unlabelled:
        if not sources:
            raise UsageError(f"{where} holds no pictures (looked for {', '.join(sorted(ENDINGS))})")
        return Layout(sources, [], read.count_others(), [])
    classes = sorted({source.labels[0] for source in sources})
    if not sources:
        raise UsageError(read.explain_nothing())
    if len(classes) == 1 and not wrapped:
        read.refuse_wrapper(classes[0])
    if not incomplete:
        check_classes(where, sources, classes, read.spell_way_out())
    return Layout(sources, classes, read.count_others(), read.describe(), read.find_lost(folders, classes))


class _Folders:
    """Files by folder; the class and split of a folder are determined once."""

    def __init__(self, where: Path, pattern: Pattern | None) -> None:
        self._where, self._pattern = where, pattern
        self._pictures: dict[str, list[Entry]] = {}
        self._others: dict[str, Counter[str]] = {}
        self._parts: dict[str, Parts | None] = {}
        self._classed: set[str] = set()
        self._loose: list[str] = []
        self._reading = Reading(CLASSES, {})
        self._depth = 0

    def add(self, entry: Entry) -> None:
        folder, _, file = entry.name.rpartition("/")
        if folder not in self._parts:
            self._parts[folder] = _read_parts(folder)
        if self._parts[folder] is None or is_ignored(file):
            return
        ending = read_ending(file)
        if ending in ENDINGS or entry.picture:
            self._pictures.setdefault(folder, []).append(entry)
        else:
            self._others.setdefault(folder, Counter())[ending or "(no ending)"] += 1

    def take_all(self) -> list[Source]:
        self._classed = set(self._parts)
        pictures = (entry for entries in self._pictures.values() for entry in entries)
        return [_make(entry, (), "all") for entry in pictures]

    def take_classes(self, wrapped: bool) -> list[Source]:
        parts = {folder: parts for folder, parts in self._parts.items() if parts is not None}
        depth = self._depth = self._read([parts[folder] for folder in self._pictures], wrapped)
        sources: list[Source] = []
        for folder in parts:
            place = self._reading.place(parts[folder][depth:])
            entries = self._pictures.get(folder, [])
            if place is None:
                self._loose += [entry.name for entry in entries]
                continue
            self._classed.add(folder)
            label, split = place
            sources += [_make(entry, (label,), split) for entry in entries]
        return sources

    def _read(self, folders: list[Parts], wrapped: bool) -> int:
        """Determine the meaning of the folders with pictures; return how many levels above them are ignored."""
        deepest = _count_wrappers(folders) if wrapped else 0
        if self._pattern is None:
            self._reading = read_freely(self._where, [parts[deepest:] for parts in folders])
            return deepest
        for depth in range(deepest, -1, -1):  # the pattern may or may not include a folder around all others
            inner = [parts[depth:] for parts in folders]
            self._reading = read_as(inner, self._pattern)
            if any(map(self._reading.place, inner)):
                return depth
        raise UsageError(
            f"{self._where} has no picture in folders that fit --layout {self._pattern}"
            + (f" (the first of {len(folders):,} folders is '{'/'.join(min(folders))}')" if folders else "")
            + "; correct it, or leave it out to use the folders' names"
        )

    def refuse_wrapper(self, top: str) -> None:
        """Raise if the only class folder contains several folders, as unpacked archives do."""
        inside = {parts[1] for folder in self._pictures if (parts := self._parts[folder]) and len(parts) > 1}
        if len(inside) > 1:
            raise UsageError(
                f"{self._where} has only one class, '{top}'; if the folders in it are the classes or splits "
                f"({', '.join(sorted(inside)[:3])}), give {self._where / top}"
            )

    def count_others(self) -> dict[str, int]:
        """Return the number of other files by ending, in folders from which pictures are taken."""
        total: Counter[str] = Counter()
        for folder in self._classed:
            total += self._others.get(folder, Counter())
        return dict(sorted(total.items()))

    def find_lost(self, folders: Iterable[str], classes: Sequence[str]) -> dict[str, str]:
        """Return the content of class folders that are empty or have only pictures of unsupported formats."""
        inside: dict[str, Counter[str]] = {}
        for folder in {*folders, *self._parts}:
            parts = _read_parts(folder)
            place = self._reading.place(parts[self._depth :]) if parts is not None else None
            if place is not None:
                inside.setdefault(place[0], Counter()).update(self._others.get(folder, {}))
        known = {*classes}
        return {
            label: ", ".join(f"{count:,} {ending}" for ending, count in sorted(others.items()))
            for label, others in sorted(inside.items())
            if label not in known and (not others or not UNREAD.isdisjoint(others))
        }

    def describe(self) -> list[str]:
        """Return notes on unusual readings of folders, and on pictures left out."""
        if not self._loose:
            return self._reading.notes
        lie = count_things(len(self._loose), "picture lies", "pictures lie")
        first = f"(the first is '{min(self._loose)}')"
        if self._pattern is not None:
            loose = f"{lie} in folders that --layout {self._pattern} leaves out {first}, and so in no shard"
        else:
            loose = (
                f"{lie} in no class folder of {self._where} and so in no shard {first}; "
                "move them into the folder of their class"
            )
        return [*self._reading.notes, loose]

    def spell_way_out(self) -> str:
        """Return a remedy if folders read as splits may be classes."""
        if not self._reading.guessed:
            return ""
        names = ", ".join(f"'{name}'" for name in sorted(self._reading.splits))
        return f"; the folders {names} were read as splits: give --layout {CLASSES} if they are the classes"

    def explain_nothing(self) -> str:
        loose = ""
        if self._loose:
            loose = f"; {len(self._loose):,} are outside class folders, for example '{min(self._loose)}'"
        return (
            f"{self._where} holds no pictures in class folders (looked for {', '.join(sorted(ENDINGS))}){loose}; "
            "put the pictures of each class into a subfolder named after it"
            + (", or give --unlabelled to take them without labels" if loose else "")
        )


def _read_parts(folder: str) -> Parts | None:
    """Return the folders on the way to a file, None if one of them is ignored."""
    parts = tuple(part for part in folder.split("/") if part not in ("", "."))
    return None if any(is_ignored(part) for part in parts) else parts


def _count_wrappers(folders: Sequence[Parts]) -> int:
    """Return the number of folders around all split or class folders; pictures outside them do not count."""
    inside, depth = [parts for parts in folders if parts], 0
    while inside and len({parts[0] for parts in inside}) == 1:
        if is_split_word(inside[0][0]) or all(len(parts) == 1 for parts in inside):
            break
        inside = [parts[1:] for parts in inside if len(parts) > 1]
        depth += 1
    return depth


def _make(entry: Entry, labels: tuple[str, ...], split: str | None) -> Source:
    return Source(entry.name, labels, split, entry.size, entry.stamp, entry.offset)


def check_classes(where: Path, sources: Sequence[Source], classes: Sequence[str], way_out: str = "") -> None:
    """Raise a UsageError unless there are two or more classes, all of them in train if splits are given.

    Splits without train are for evaluating a model, which knows its own classes.

    way_out: Another remedy to add to each message.
    """
    if not any(source.split in (None, "train") for source in sources):
        return
    if len(classes) == 1:
        alone = (
            ""
            if any(source.split for source in sources)
            else (" (if they are only to evaluate a model on: --split test=1)")
        )
        raise UsageError(
            f"{where} has only one class, '{classes[0]}'; a classifier needs two or more classes{alone}{way_out}"
        )
    trained = {label for source in sources if source.split in (None, "train") for label in source.labels}
    # Classes that look like one in train are joined or refused by `settle_classes`.
    known = {fold_class(label) for label in trained}
    unseen = sorted(label for label in set(classes) - trained if fold_class(label) not in known)
    if unseen:
        raise UsageError(
            f"class '{unseen[0]}' has no pictures in train, so it cannot be learnt; move pictures of it there, or "
            f"correct its name{way_out}"
        )


def sort_sources(
    where: Path, sources: list[Source], unlabelled: bool, incomplete: bool = False
) -> tuple[list[str], bool]:
    """Sort sources with labels beside them by name; return their classes, and whether any has several labels.

    Raises:
        UsageError: As `check_classes`, unless they are unlabelled or classes may be missing.
    """
    sources.sort(key=lambda source: source.name)
    classes = sort_labels(label for source in sources for label in source.labels)
    if not unlabelled and not incomplete:
        check_classes(where, sources, classes)
    return classes, any(len(source.labels) > 1 for source in sources)


def sort_labels(labels: Iterable[str]) -> list[str]:
    """Return class names sorted, numerically if all are numbers: class 10 comes after class 9.

    >>> sort_labels(["10", "9", "0"]), sort_labels(["10", "9", "cat"])
    (['0', '9', '10'], ['10', '9', 'cat'])
    """
    names = set(labels)
    numbers = all(name.isascii() and name.isdecimal() and str(int(name)) == name for name in names)
    return sorted(names, key=int) if numbers else sorted(names)
