"""Columns that somebody else knows of the samples: site, scanner, age; a table joined to predictions."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from shards.dataset import Split
from shards.errors import UsageError
from shards.read import SampleReader
from trainer.evaluation.predictions import Predictions

_KEYS = {"sample_id": pa.int64(), "path": pa.string()}
_INDEXED = {"sample_id": "sample_id", "path": "source"}
"""What the keys are called in the index of a dataset."""
_TAKEN = ("label", "prediction")


def read_columns(path: Path) -> pa.Table:
    """Return a CSV or Parquet file whose rows are about samples, one each, told by sample_id or path.

    Raises:
        UsageError: It cannot be read, has no such key or nothing beside it, names a sample twice, or has a column
            that is the model's to fill.
    """
    try:
        table = pq.read_table(path) if path.suffix == ".parquet" else pyarrow.csv.read_csv(path)
        key = next((name for name in _KEYS if name in table.column_names), None)
        if key is None:
            raise UsageError(f"{path} has the columns {', '.join(table.column_names)}; it needs sample_id or path")
        table = table.set_column(table.column_names.index(key), key, table[key].cast(_KEYS[key]))
    except (OSError, pa.ArrowException) as err:
        raise UsageError(f"{path} cannot be read as a table ({str(err).splitlines()[0]}); give CSV or Parquet") from err
    taken = [name for name in table.column_names if name in _TAKEN or name.startswith(("logit_", "probability_"))]
    if taken:
        raise UsageError(f"{path} has the column {taken[0]}, which an evaluation fills itself; rename it")
    if len(table.column_names) < 2:
        raise UsageError(f"{path} has the column {key} alone, so there is nothing to slice by")
    counts = pc.value_counts(table[key])
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise UsageError(f"{path} has {len(twice):,} samples twice, for example {key} {twice[0]['values'].as_py()}")
    return table


def check_samples(table: pa.Table, split: Split) -> None:
    """Raise UsageError where a table as of `read_columns` knows no sample of a split: before hours of evaluation."""
    key = _find_key(table)
    with SampleReader(split) as reader:
        _find_rows(reader.read_columns([_INDEXED[key]])[_INDEXED[key]], table)


def join_columns(predictions: Predictions, table: pa.Table) -> tuple[Predictions, str | None]:
    """Return predictions with the columns of a table as of `read_columns`, and a note on samples that it lacks.

    Raises:
        UsageError: It knows none of the samples.
    """
    places = _find_rows(predictions.known[_find_key(table)], table)
    more = table.drop_columns([name for name in _KEYS if name in table.column_names]).take(places)
    note = f"{places.null_count:,} of {len(places):,} samples are not in --columns" if places.null_count else None
    return predictions.with_columns(more), note


def _find_key(table: pa.Table) -> str:
    return next(name for name in _KEYS if name in table.column_names)


def _find_rows(keys: pa.ChunkedArray, table: pa.Table) -> pa.ChunkedArray:
    """Return for each key its row in the table, null where it has none."""
    key = _find_key(table)
    places = pc.index_in(keys, table[key].combine_chunks())
    if places.null_count == len(places):
        raise UsageError(
            f"none of the {len(places):,} samples is in --columns by its {key}, for example {keys[0].as_py()}"
        )
    return places
