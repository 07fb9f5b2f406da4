"""Classes with names that look alike, and class folders without pictures: refused, or handled as the user chooses."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from shards.errors import UsageError
from shards.sources.class_forms import fold_class
from shards.sources.model import Source, SourceList

Alike = Literal["refuse", "join", "keep"]
ALIKE: tuple[str, ...] = get_args(Alike)
_NAMED = 3
"""Folders or classes that a message names."""


def find_alike(classes: Iterable[str]) -> list[list[str]]:
    """Return sets of classes that look alike, each sorted."""
    groups: dict[str, list[str]] = {}
    for name in sorted(classes):
        groups.setdefault(fold_class(name), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def settle_classes(
    src: Path, listed: SourceList, alike: Alike = "refuse", drop_empty: bool = False, one_is_enough: bool = False
) -> SourceList:
    """Return the pictures with look-alike classes and empty class folders handled.

    Args:
        src: The source, for error messages.
        alike: What to do with classes that look alike; join: all get the spelling that most pictures have.
        drop_empty: Leave out class folders without a readable picture.
        one_is_enough: No model will be trained on these pictures, so one class is enough.

    Raises:
        UsageError: Such classes or folders without an option for them, or only one class left.
    """
    groups = find_alike(listed.classes)
    if groups and alike == "refuse":
        names = " and ".join(_show(name) for name in groups[0])
        more = f" (and {len(groups) - 1:,} more such sets)" if len(groups) > 1 else ""
        raise UsageError(
            f"{src}: the classes {names} look alike{more}, but each would be a class of its own; rename them, or "
            "give --alike join to make one class of them, or --alike keep if they are different"
        )
    if groups and alike == "join":
        listed = _join(src, listed, groups, one_is_enough)
    known = set(map(fold_class, listed.classes))
    lost = {name: what for name, what in listed.lost.items() if fold_class(name) not in known}
    if lost and not drop_empty:
        raise UsageError(
            f"{src}: {_describe_lost(lost)}, so it would not be a class; convert its files or add pictures, remove the "
            "folder, or give --drop-empty-classes to leave it out"
        )
    notes = [f"{_describe_lost(lost)}: left out"] if lost else []
    return replace(listed, lost={}, notes=[*listed.notes, *notes])


def _describe_lost(lost: dict[str, str]) -> str:
    name = next(iter(lost))
    what = f"holds no picture that can be read, but {lost[name]}" if lost[name] else "is empty"
    more = [f"'{each}'" for each in list(lost)[1 : _NAMED + 1]]
    others = f" (likewise {', '.join(more)}{', ...' if len(lost) > _NAMED + 1 else ''})" if more else ""
    return f"the class folder '{name}' {what}{others}"


def _join(src: Path, listed: SourceList, groups: Sequence[Sequence[str]], one_is_enough: bool) -> SourceList:
    counts = Counter(label for source in listed.sources for label in source.labels)
    kept: dict[str, str] = {}
    notes = []
    for names in groups:
        best = max(names, key=lambda name: (counts[name], -names.index(name)))
        kept |= dict.fromkeys(names, best)
        spelt = ", ".join(f"{_show(name)} ({counts[name]:,})" for name in names)
        notes.append(f"the classes {spelt} look alike and are joined to one: {_show(best)}")
    classes = [name for name in listed.classes if kept.get(name, name) == name]
    if len(classes) < 2 and not one_is_enough:
        raise UsageError(f"{src} has only one class once look-alike classes are joined; give --alike keep")
    sources = [_rename(source, kept) for source in listed.sources]
    return replace(
        listed, sources=sources, classes=classes, display_names=classes, notes=[*listed.notes, *notes],
        multi_label=listed.multi_label and any(len(source.labels) > 1 for source in sources),
    )  # fmt: skip


def _rename(source: Source, kept: dict[str, str]) -> Source:
    labels = tuple(dict.fromkeys(kept.get(label, label) for label in source.labels))
    return source if labels == source.labels else replace(source, labels=labels)


def _show(name: str) -> str:
    """Return a name in quotes, with invisible characters escaped.

    >>> _show("Cat "), _show("cat\\u200b")
    ("'Cat '", "'cat\\\\u200b'")
    """
    plain = all(each.isprintable() and not unicodedata.combining(each) for each in name)
    return f"'{name}'" if plain else ascii(name)
