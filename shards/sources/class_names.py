"""Display names of classes: `0` -> `正常肺部`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from shards.cli.sentences import join_some
from shards.errors import UsageError
from shards.sources.table import read_text

_SEPARATORS = ("\t", ",", None)
"""In the order tried; None is any run of spaces."""
_FORMS = "lines like `0 NAME`, `0,NAME` or `0<tab>NAME`, or a JSON or YAML mapping"


def name_classes(path: Path, classes: Sequence[str]) -> list[str]:
    """Return the display name of each class.

    Raises:
        UsageError: As `read_class_names`, a class without a name, or a name without a class.
    """
    names = read_class_names(path, classes)
    nameless = [label for label in classes if label not in names]
    unknown = [label for label in names if label not in classes]
    if unknown:
        raise UsageError(
            f"{path} names a class '{unknown[0]}' that the pictures do not have; they have {join_some(classes)}"
        )
    if nameless:
        raise UsageError(f"{path} has no name for class '{nameless[0]}'; add a line for it")
    return [names[label] for label in classes]


def read_class_names(path: Path, classes: Collection[str] = ()) -> dict[str, str]:
    """Return display names by class from a file.

    Args:
        path: UTF-8 lines of class and name, separated by a tab, a comma or spaces; or a mapping in .json, .yaml or
        .yml.
        classes: The known classes; they decide which separator the lines use.

    Raises:
        UsageError: No such file, another form, a class named twice, or an empty name.
    """
    if not path.is_file():
        raise UsageError(f"--class-names: no such file: {path}; give {_FORMS}")
    text = read_text(path)
    if path.suffix.lower() in (".json", ".yaml", ".yml"):
        pairs = _read_mapping(path, text)
    else:
        pairs = _read_lines(path, text, classes)
    names: dict[str, str] = {}
    for label, name in pairs:
        if label in names:
            raise UsageError(f"{path} names class '{label}' twice; keep one of the names")
        if not name:
            raise UsageError(f"{path} has an empty name for class '{label}'; give it one")
        names[label] = name
    return names


def _read_mapping(path: Path, text: str) -> Iterable[tuple[str, str]]:
    try:
        pairs = _parse_json(text) if path.suffix.lower() == ".json" else _parse_yaml(text)
    except (ValueError, yaml.YAMLError) as err:
        raise UsageError(f"{path} cannot be read ({' '.join(str(err).split())}); give {_FORMS}") from err
    if pairs is None or not all(isinstance(value, str) for pair in pairs for value in pair):
        raise UsageError(f"{path} is not one mapping of class to name; give {_FORMS}")
    return [(label, name.strip()) for label, name in pairs]


class _Pairs(list[tuple[Any, Any]]):
    """A JSON object with its repeated keys."""


def _parse_json(text: str) -> list[tuple[Any, Any]] | None:
    """Return the pairs of a mapping, including repeated keys; None for anything else."""
    found = json.loads(text, object_pairs_hook=_Pairs)
    return found if isinstance(found, _Pairs) else None


def _parse_yaml(text: str) -> list[tuple[Any, Any]] | None:
    """Return the same for YAML."""
    # Composed, not loaded: values stay as spelt, while loading turns a class called `no` into False.
    node = yaml.compose(text, yaml.BaseLoader)
    return [(key.value, value.value) for key, value in node.value] if isinstance(node, yaml.MappingNode) else None


def _read_lines(path: Path, text: str, classes: Collection[str]) -> Iterable[tuple[str, str]]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    readings = [[line.split(separator, 1) for line in lines] for separator in _SEPARATORS]
    whole = [reading for reading in readings if all(len(parts) == 2 for parts in reading)]
    if not whole or not lines:
        odd = next((line for line in lines if len(line.split(None, 1)) < 2), lines[0] if lines else "")
        raise UsageError(f"{path}: '{odd}' is not a class and its name; give {_FORMS}")
    stripped = [[(label.strip(), name.strip()) for label, name in reading] for reading in whole]
    # `n01440764 tench, Tinca tinca` could also be split at the comma; the known classes decide.
    fitting = (reading for reading in stripped if {label for label, _ in reading} == set(classes))
    return next(fitting, stripped[0])
