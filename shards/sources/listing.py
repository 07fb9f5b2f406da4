"""A CSV or Parquet list of pictures: columns path and label, and optionally split, group and weight."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shards.errors import ShardError, UsageError
from shards.sources.folder import group_patients
from shards.sources.layout import check_classes, find_split, read_ending, sort_labels
from shards.sources.model import FolderStore, Source, SourceList
from shards.sources.sidecar import read_text, read_weight

LIST_ENDINGS = (".csv", ".tsv", ".parquet")
COLUMNS = ("path", "label", "split", "group", "weight")
_SEPARATOR = ";"


@dataclass(frozen=True)
class _Table:
    """number: of a row as its program shows it; columns: all there are; rows: of text, empty where there is none."""

    columns: list[str]
    rows: Sequence[tuple[int, Mapping[str, str]]]


def read_list(path: Path, *, unlabelled: bool = False) -> SourceList:
    """Return the pictures of a list; paths are absolute or relative to the folder of the list.

    Several labels of one picture are separated by `;`. Labels that are all whole numbers are sorted as numbers.

    Raises:
        UsageError: A list, row or value that is none, a file that is missing or stands there twice.
        ShardError: A damaged Parquet file.
    """
    table = _read_parquet(path) if read_ending(path.name) == ".parquet" else _read_csv(path)
    _refuse_columns(path, table, unlabelled)
    store = FolderStore(path.parent)
    _refuse_doubles(path, table)
    facts = _look_up(path, store.root, table)
    give_split = _choose_split(path, table, unlabelled)
    sources = [_make(path, number, row, facts[number], give_split, unlabelled) for number, row in table.rows]
    sources.sort(key=lambda source: source.name)
    classes = sort_labels(label for source in sources for label in source.labels)
    if not unlabelled:
        check_classes(path, sources, classes)
    several = any(len(source.labels) > 1 for source in sources)
    sources = group_patients(store, sources)
    return SourceList(sources, classes, {}, store, list(classes), several, _describe_columns(path, table, unlabelled))


def _read_csv(path: Path) -> _Table:
    text = read_text(path)
    header = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in header else ",", strict=True)
    rows = []
    try:
        for row in reader:
            if None in row or None in row.values():
                raise UsageError(
                    f"{path} row {reader.line_num} has {'more' if None in row else 'fewer'} values than the "
                    f"{len(reader.fieldnames or [])} columns; put a value that holds the separator into quotes"
                )
            rows.append((reader.line_num, {name: value.strip() for name, value in row.items()}))
    except csv.Error as err:
        raise UsageError(f"{path} cannot be read behind row {reader.line_num} ({err}); save it again as CSV") from err
    return _Table([name.strip() for name in reader.fieldnames or []], rows)


def _read_parquet(path: Path) -> _Table:
    try:
        file = pq.ParquetFile(path)
        columns = file.schema_arrow.names
        table = file.read(columns=[name for name in COLUMNS if name in columns])
    except pa.ArrowException as err:
        raise ShardError(f"{path} is damaged or no Parquet file ({err}); fetch or write it again") from err
    for field in table.schema:
        _refuse_type(path, field)
    return _Table(columns, list(_read_arrow_rows(table)))


def _refuse_type(path: Path, field: pa.Field) -> None:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
    whole = pa.types.is_integer(kind) and field.name in ("label", "group", "weight")
    if not (text or whole or (pa.types.is_floating(kind) and field.name == "weight")):
        raise UsageError(f"{path}: column {field.name} is {field.type}; write it as text")


def _read_arrow_rows(table: pa.Table) -> Iterator[tuple[int, dict[str, str]]]:
    columns: list[list[Any]] = [table[name].to_pylist() for name in table.column_names]
    for number, values in enumerate(zip(*columns, strict=True), start=1):
        pairs = zip(table.column_names, values, strict=True)
        yield number, {name: "" if value is None else str(value) for name, value in pairs}


def _refuse_columns(path: Path, table: _Table, unlabelled: bool) -> None:
    needed = ("path",) if unlabelled else ("path", "label")
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise UsageError(
            f"{path} has no column {missing[0]}; its columns are {', '.join(table.columns) or 'none'}, and it must "
            f"have {' and '.join(needed)} in its first line, separated by commas or tabs"
        )
    double = [name for name in COLUMNS if table.columns.count(name) > 1]
    if double:
        raise UsageError(f"{path} has two columns {double[0]}; keep one of them")
    if not table.rows:
        raise UsageError(f"{path} has no rows; write a row for each picture")


def _refuse_doubles(path: Path, table: _Table) -> None:
    seen: dict[str, int] = {}
    for number, row in table.rows:
        place = os.path.normpath(path.parent / row["path"])
        if place in seen:
            raise UsageError(
                f"{path} row {number} names '{row['path']}' as row {seen[place]} does; keep one of them, with several "
                f"labels separated by '{_SEPARATOR}'"
            )
        seen[place] = number


def _look_up(path: Path, root: Path, table: _Table) -> dict[int, os.stat_result]:
    """Return size and time of the file of each row by its number."""
    facts: dict[int, os.stat_result] = {}
    missing: list[tuple[int, str]] = []
    for number, row in table.rows:
        try:
            facts[number] = os.stat(os.path.join(root, row["path"]))
        except (OSError, ValueError):  # ValueError: a NUL in the path
            missing.append((number, row["path"]))
            continue
        if not row["path"] or not os.path.isfile(os.path.join(root, row["path"])):
            missing.append((number, row["path"]))
    if missing:
        number, name = missing[0]
        more = f" (nor those of {len(missing) - 1:,} more rows)" if len(missing) > 1 else ""
        raise UsageError(
            f"{path} row {number}: there is no file '{name}'{more}; paths are absolute or relative to {root}"
        )
    return facts


def _choose_split(path: Path, table: _Table, unlabelled: bool) -> Callable[[int, Mapping[str, str]], str | None]:
    """Return what gives a row's split: the column where it is filled, else nothing does."""
    if unlabelled:
        return lambda *_: "all"
    given = [bool(row.get("split")) for _, row in table.rows]
    if not any(given):
        return lambda *_: None
    if not all(given):
        number = table.rows[given.index(False)][0]
        raise UsageError(f"{path} row {number} has no split and other rows do; fill the column, or leave it out")

    def read(number: int, row: Mapping[str, str]) -> str:
        split = find_split(row["split"])
        if split is None:
            raise UsageError(f"{path} row {number}: no split '{row['split']}'; it is train, val (validation) or test")
        return split

    return read


def _make(
    path: Path,
    number: int,
    row: Mapping[str, str],
    facts: os.stat_result,
    give_split: Callable[[int, Mapping[str, str]], str | None],
    unlabelled: bool,
) -> Source:
    labels = () if unlabelled else _read_labels(path, number, row["label"])
    weight = read_weight(path, row["path"], row["weight"]) if row.get("weight") else 1.0
    return Source(
        row["path"],
        labels,
        give_split(number, row),
        facts.st_size,
        facts.st_mtime_ns,
        weight=weight,
        group=row.get("group", ""),
    )


def _read_labels(path: Path, number: int, text: str) -> tuple[str, ...]:
    labels = tuple(dict.fromkeys(part.strip() for part in text.split(_SEPARATOR) if part.strip()))
    if not labels:
        raise UsageError(
            f"{path} row {number} has no label; write one, drop the row, or give --unlabelled to take none from all"
        )
    return labels


def _describe_columns(path: Path, table: _Table, unlabelled: bool) -> list[str]:
    used = ("path", "group", "weight") if unlabelled else COLUMNS
    other = [name for name in table.columns if name not in used]
    return [f"{path}: columns that are not used: {', '.join(other)}"] if other else []
