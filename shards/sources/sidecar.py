"""`samples.csv` beside the class folders: weight and group of single pictures."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

from shards.errors import UsageError
from shards.sources.layout import SIDECAR
from shards.sources.model import Source

_COLUMNS = {"path", "weight", "group"}


def apply_sidecar(root: Path, sources: list[Source]) -> list[Source]:
    """Return the sources with the weights and groups that `samples.csv` in `root` gives, where that file exists.

    Raises:
        UsageError: Other columns, a value that is none, a picture that there is not, or two rows for one.
    """
    path = root / SIDECAR
    if not path.is_file():
        return sources
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    columns = reader.fieldnames or []
    if "path" not in columns or len(columns) == 1 or set(columns) - _COLUMNS or len(set(columns)) < len(columns):
        raise UsageError(f"{path} must have the columns path and weight, group or both, got {','.join(columns)}")
    rows = _read_rows(path, reader)
    unknown = sorted(set(rows) - {source.name for source in sources})
    if unknown:
        raise UsageError(
            f"{path} names '{unknown[0]}', which is not a picture below {root}; correct the path or drop the row"
        )
    return [_apply(path, source, rows.get(source.name, {})) for source in sources]


def _read_rows(path: Path, reader: csv.DictReader[str]) -> dict[str, dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    for row in reader:
        if None in row:
            raise UsageError(f"{path} has too many values for '{row['path']}'; put a value with a comma into quotes")
        if row["path"] in rows:
            raise UsageError(f"{path} has two rows for '{row['path']}'; keep one of them")
        rows[row["path"]] = row
    return rows


def _apply(path: Path, source: Source, row: dict[str, str]) -> Source:
    if not row:
        return source
    weight = read_weight(path, source.name, row["weight"]) if "weight" in row else source.weight
    return replace(source, weight=weight, group=row.get("group") or source.group)


def read_text(path: Path) -> str:
    """Return a UTF-8 file without its byte order mark.

    Raises:
        UsageError: Not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as err:
        raise UsageError(f"{path} is not UTF-8 text (byte {err.start:,}); save it again as 'CSV UTF-8'") from err


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
