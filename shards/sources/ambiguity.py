"""Class folders with the same subfolders: these may be splits, the actual classes, or masks beside pictures."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from pathlib import Path

from shards.errors import UsageError
from shards.sources.pattern import Pattern
from shards.sources.split_words import is_split_word, read_splits

_MASKS = frozenset(
    {"mask", "masks", "segmentation", "segmentations", "annotation", "annotations", "groundtruth", "ground_truth"}
)
_SHOWN = 3


def refuse_same_inside(where: Path, pattern: Pattern, inside: Mapping[str, Collection[str]]) -> None:
    """Raise if subfolders of the class folders may have a meaning.

    Args:
        where: The source, for the error message.
        pattern: The meaning of the folders so far.
        inside: Class -> names of the folders directly in it, `` for pictures directly in the class.

    Raises:
        UsageError: All classes have the same two or more subfolders, or one has splits, or one has masks beside
            pictures. The message has an option for each reading.
    """
    if len(inside) < 2:  # no classes yet: a folder around the actual ones
        return
    folders = {label: {name for name in names if name} for label, names in inside.items()}
    masked = [label for label, names in folders.items() if len(inside[label]) > 1 and _name_masks(names)]
    split = [label for label, names in folders.items() if "split" not in pattern.words and _holds_splits(names)]
    common = set.intersection(*folders.values())
    labels = split or masked or (sorted(folders) if len(common) > 1 else [])
    if not labels:
        return
    names = sorted(common if len(common) > 1 else folders[labels[0]])
    readings = _spell_readings(pattern, sorted(inside), names, bool(split), any("" in inside[each] for each in labels))
    count = "all classes hold" if len(common) > 1 else f"the class '{labels[0]}' holds"
    raise UsageError(
        f"{where}: {count} the {'same ' if len(common) > 1 else ''}subfolders {_list(names)}, whose meaning is "
        f"unclear: {readings}"
    )


def _name_masks(names: Collection[str]) -> list[str]:
    return [name for name in names if name.lower() in _MASKS]


def _holds_splits(names: Collection[str]) -> bool:
    splits = read_splits([name for name in names if is_split_word(name)])
    return "train" in splits.values() and len(set(splits.values())) > 1


def _spell_readings(
    pattern: Pattern, labels: Collection[str], names: Collection[str], splits: bool, direct: bool
) -> str:
    path, classes = "/".join(pattern.words), _list(labels)
    whole = f"--layout {path}/... for the classes {classes} with everything below them"
    if splits:
        return f"give --layout {path}/split for the classes {classes} in the splits {_list(names)}, or {whole}"
    masks = _name_masks(names)
    ordered = [name for name in names if name not in masks] + masks
    taken = "--layout " + shlex.quote(f"{path}/." if direct else f"{path}/{ordered[0]}")
    each = "only the pictures directly in them" if direct else f"only the pictures in '{ordered[0]}'"
    one = f"{taken} for the classes {classes} with {each}"
    if masks:
        return f"give {one}, or {whole}"
    above = path.replace("class", "any")
    return (
        f"give --layout {above}/class for the classes {_list(names)}, {whole}, or {one}; folders that are splits "
        "must be named train, val and test"
    )


def _list(names: Collection[str]) -> str:
    shown = list(names)[:_SHOWN]
    return ", ".join(shown) + (", ..." if len(names) > _SHOWN else "")
