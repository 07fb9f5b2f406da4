"""Additional columns of samples, such as site, scanner or age: a table joined to predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from shards.dataset.read import SampleReader
from shards.dataset.split import Split
from shards.errors import UsageError
from shards.sources.endings import read_ending
from shards.sources.headings import BLANKS, clean, fold, rank_near
from shards.sources.table import find_delimiter
from trainer.evaluate.predictions import Predictions

_KEYS = {"sample_id": pa.int64(), "path": pa.string()}
_INDEXED = {"sample_id": "sample_id", "path": "source"}
"""Names of the keys in a dataset's index."""
_GROUP = "group"
_NOTES = "notes"
"""Key in a table's metadata for notes about its columns."""
_TAKEN = ("label", "prediction")


def read_columns(path: Path) -> pa.Table:
    """Return a CSV or Parquet file with one row per sample, identified by sample_id or path.

    Raises:
        UsageError: The file cannot be read, has no key or no other column, has a sample twice, or has a column that
            the evaluation writes.
    """
    try:
        table = pq.read_table(path) if read_ending(path.name) == ".parquet" else _read_csv(path)
        table, notes = _name_columns(path, table)
        key = next((name for name in _KEYS if name in table.column_names), None)
        if key is None:
            raise UsageError(
                f"{path} has the columns {', '.join(table.column_names)}; it needs sample_id or path{_hint(table)}"
            )
        table = table.set_column(table.column_names.index(key), key, table[key].cast(_KEYS[key]))
    except (OSError, pa.ArrowException) as err:
        raise UsageError(f"{path} cannot be read as a table ({str(err).splitlines()[0]}); give CSV or Parquet") from err
    taken = [name for name in table.column_names if name in _TAKEN or name.startswith(("logit_", "probability_"))]
    if taken:
        raise UsageError(f"{path} has the column {taken[0]}, which an evaluation writes itself; rename it")
    if len(table.column_names) < 2:
        raise UsageError(f"{path} has only the column {key}, so there is nothing to slice by")
    counts = pc.value_counts(table[key])
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise UsageError(f"{path} has {len(twice):,} samples twice, for example {key} {twice[0]['values'].as_py()}")
    return table.replace_schema_metadata({_NOTES: "; ".join(notes)})


def _read_csv(path: Path) -> pa.Table:
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        delimiter = find_delimiter(file.readline(), (*_KEYS, _GROUP))
    return pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter))


def _name_columns(path: Path, table: pa.Table) -> tuple[pa.Table, list[str]]:
    """Return a table with stripped names and texts and our names for keys and groups, and notes about changes."""
    names = [fold(name) if fold(name) in (*_KEYS, _GROUP) else clean(name) for name in table.column_names]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise UsageError(f"{path} has two columns {double}; keep one of them")
    odd = [f"{old!r} as {new}" for old, new in zip(table.column_names, names, strict=True) if old != new]
    notes = [f"columns were renamed because of spaces or case: {', '.join(odd)}"] if odd else []
    table = table.rename_columns(names)
    for place, name in enumerate(names):
        if name not in _KEYS and pa.types.is_string(table[name].type):
            table = table.set_column(place, name, pc.utf8_trim(table[name], characters=BLANKS))
    near = [name for name in names if rank_near(name, _GROUP) is not None]
    if near and _GROUP not in names:
        notes.append(f"'{near[0]}' is not used as group; rename it to group for intervals by group")
    return table, notes


def _hint(table: pa.Table) -> str:
    ranks = {name: rank for name in table.column_names if (rank := rank_near(name, "path")) is not None}
    return f"; if '{min(ranks, key=ranks.__getitem__)}' is the path, rename it to path" if ranks else ""


def check_paths(table: pa.Table, paths: Sequence[str]) -> None:
    """Raise UsageError if a table from `read_columns` has no paths, because unpacked pictures have no sample_id."""
    if _find_key(table) != "path":
        raise UsageError("--columns has sample_id, but unpacked pictures have none; use the column path")
    _find_rows(pa.chunked_array([pa.array(paths, pa.string())]), table)


def check_samples(table: pa.Table, split: Split) -> None:
    """Raise UsageError before the evaluation if a table from `read_columns` has no sample of a split."""
    key = _find_key(table)
    with SampleReader(split) as reader:
        _find_rows(reader.read_columns([_INDEXED[key]])[_INDEXED[key]], table)


def join_columns(predictions: Predictions, table: pa.Table) -> tuple[Predictions, str | None]:
    """Return predictions with the columns of a table from `read_columns`, and a note on missing samples.

    Raises:
        UsageError: The table has none of the samples.
    """
    places = _find_rows(predictions.known[_find_key(table)], table)
    more = table.drop_columns([name for name in _KEYS if name in table.column_names]).take(places)
    lost = f"{places.null_count:,} of {len(places):,} samples are not in --columns" if places.null_count else ""
    told = (table.schema.metadata or {}).get(_NOTES.encode(), b"").decode()
    return predictions.with_columns(more), "; ".join(filter(None, [lost, told])) or None


def _find_key(table: pa.Table) -> str:
    return next(name for name in _KEYS if name in table.column_names)


def _find_rows(keys: pa.ChunkedArray, table: pa.Table) -> pa.ChunkedArray:
    """Return the row in the table for each key, null if there is none."""
    key = _find_key(table)
    values = table[key].combine_chunks()
    places = pc.index_in(keys, values)
    if pa.types.is_string(values.type):  # spaces around a path are rarely part of it
        places = pc.coalesce(places, pc.index_in(keys, pc.utf8_trim(values, characters=BLANKS)))
    if places.null_count == len(places):
        raise UsageError(
            f"none of the {len(places):,} samples has its {key} in --columns, for example {keys[0].as_py()}"
        )
    return places
