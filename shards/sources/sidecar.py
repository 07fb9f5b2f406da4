"""`samples.csv` beside the class folders: weights and groups of single pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from shards.errors import UsageError
from shards.sources.class_forms import list_forms
from shards.sources.endings import SIDECAR
from shards.sources.headings import fold, trim
from shards.sources.list_columns import describe_spelt
from shards.sources.model import Source
from shards.sources.table import Table, read_table

_COLUMNS = ("path", "weight", "group")


def apply_sidecar(root: Path, sources: list[Source]) -> tuple[list[Source], list[str]]:
    """Return the sources with the weights and groups of `samples.csv` in `root`, and notes; unchanged if there is no
    such file.

    Raises:
        UsageError: Other columns, an invalid value, an unknown picture, or two rows for one.
    """
    path = root / SIDECAR
    if not path.is_file():
        return sources, []
    table = read_table(path, _COLUMNS)
    places = {fold(name): place for place, name in enumerate(table.columns)}
    if "path" not in places or len(places) == 1 or set(places) - {*_COLUMNS} or len(places) < len(table.columns):
        raise UsageError(f"{path} must have the columns path and weight, group or both, got {','.join(table.columns)}")
    rows = _read_rows(root, table, places, {source.name for source in sources})
    notes = describe_spelt(path, table.columns, places)
    return [_apply(path, source, rows.get(source.name, {})) for source in sources], notes


def _read_rows(root: Path, table: Table, places: Mapping[str, int], known: set[str]) -> dict[str, dict[str, str]]:
    path = root / SIDECAR
    rows: dict[str, dict[str, str]] = {}
    columns = {role: table.read(place) for role, place in places.items()}
    for values in zip(*columns.values(), strict=True):
        row = dict(zip(columns, values, strict=True))
        spellings = [form for text in (row["path"], trim(row["path"])) for form in list_forms(text)]
        name = next((each for each in spellings if each in known), trim(row["path"]))
        if name in rows:
            raise UsageError(f"{path} has two rows for '{name}'; keep one of them")
        rows[name] = {role: trim(value) for role, value in row.items()}
    unknown = sorted(set(rows) - known)
    if unknown:
        raise UsageError(
            f"{path} names '{unknown[0]}', which is not a picture below {root}; correct the path or drop the row"
        )
    return rows


def read_columns(root: Path) -> frozenset[str]:
    """Return the columns of `samples.csv` in `root`, none if there is no such file."""
    path = root / SIDECAR
    if not path.is_file():
        return frozenset()
    return frozenset(fold(name) for name in read_table(path, _COLUMNS).columns)


def _apply(path: Path, source: Source, row: Mapping[str, str]) -> Source:
    if not row:
        return source
    weight = read_weight(path, source.name, row["weight"]) if "weight" in row else source.weight
    return replace(source, weight=weight, group=row.get("group") or source.group)


def read_weight(path: Path, name: str, text: object) -> float:
    """Return a weight in the loss, > 0.

    Raises:
        UsageError: Not a finite number above 0.
    """
    try:
        weight = float(str(text))
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight > 0):
        raise UsageError(f"{path}: the weight of '{name}' must be a number above 0, got '{text}'")
    return weight
