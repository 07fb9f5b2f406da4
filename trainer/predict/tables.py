"""Rows as CSV, Parquet or JSON lines: their columns, and writers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from shards.errors import UsageError
from shards.files.atomic import write_atomically
from trainer.contract.bundle import BundlePage
from trainer.contract.columns import PREFIX, format_value, join_row, list_columns, read_value
from trainer.predict.answer import Row
from trainer.predict.options import Form

_GROUP = 20_000
"""Rows per row group of a Parquet file."""


@dataclass(frozen=True)
class Columns:
    """names: column names in order; chosen: whether the user chose them."""

    names: Sequence[str]
    chosen: bool

    def values(self, row: Row) -> list[Any]:
        """Return a row's value for each column: text, numbers, booleans; lists are joined by ;."""
        assert row.answer is not None  # unreadable pictures have a separate file
        return [read_value(name, row.path, row.answer) for name in self.names]


def choose_columns(page: BundlePage, chosen: Sequence[str] | None) -> Columns:
    """Return the columns of a bundle's rows, or the chosen ones.

    Raises:
        UsageError: A chosen column does not exist or is repeated.
    """
    usual = list_columns(page.classes, page.decision.model_dump())
    if chosen is None:
        return Columns(usual, chosen=False)
    there = ["image_id", *usual]
    wrong = next((name for number, name in enumerate(chosen) if name not in there or name in chosen[:number]), None)
    if wrong is not None:
        what = "is named twice" if wrong in there else f"is not a column; there are {', '.join(there)}"
        raise UsageError(f"--columns: '{wrong}' {what}")
    return Columns(list(chosen), chosen=True)


class Writer(Protocol):
    """Write rows, except for unreadable pictures."""

    def write(self, row: Row) -> None: ...

    def close(self) -> None: ...


class LineWriter:
    """Write CSV or JSON lines to a function that takes text."""

    def __init__(self, write: Callable[[str], object], form: Form, columns: Columns) -> None:
        self._write, self._form, self._columns = write, form, columns
        self._headless = form == "csv"

    def write(self, row: Row) -> None:
        self._begin()
        if self._form == "csv":
            named = zip(self._columns.names, self._columns.values(row), strict=True)
            self._write(join_row([format_value(name, value) for name, value in named]))
        elif self._columns.chosen:
            named = zip(self._columns.names, self._columns.values(row), strict=True)
            self._write(json.dumps(dict(named), ensure_ascii=False) + "\n")
        else:
            self._write(json.dumps({"path": row.path, **(row.answer or {})}, ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._begin()

    def _begin(self) -> None:
        if self._headless:
            self._write(join_row(self._columns.names))
        self._headless = False


class ParquetWriter:
    """A Parquet file with the columns of the CSV: text, numbers at full precision, booleans."""

    def __init__(self, file: BinaryIO, columns: Columns) -> None:
        self._columns = columns
        self._schema = pa.schema([(name, _type(name)) for name in columns.names])
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[list[Any]] = []

    def write(self, row: Row) -> None:
        self._rows.append(self._columns.values(row))
        if len(self._rows) == _GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        values = zip(*self._rows, strict=True) if self._rows else [[] for _ in self._columns.names]
        arrays = [pa.array(column, kind) for column, kind in zip(values, self._schema.types, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows = []


def write_rows(out: Path, form: Form, columns: Columns, rows: Iterable[Row]) -> Iterator[Row]:
    """Write rows with answers to a file, published when complete; yield every row."""
    with write_atomically(out) as file:
        if form == "parquet":
            writer: Writer = ParquetWriter(file, columns)
        else:
            writer = LineWriter(lambda text: file.write(text.encode()), form, columns)
        for row in rows:
            if row.answer is not None:
                writer.write(row)
            yield row
        writer.close()


def _type(name: str) -> pa.DataType:
    if name == "abstain":
        return pa.bool_()
    return pa.float64() if name in ("probability", "ood_score") or name.startswith(PREFIX) else pa.string()
