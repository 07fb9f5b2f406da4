"""A CSV or Parquet table as columns of text with row numbers; other modules interpret them."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from shards.errors import ShardError, UsageError
from shards.sources.endings import LIST_ENDINGS, SIDECAR, read_ending
from shards.sources.headings import ROLES, fold

_DELIMITERS = ("\t", ",", ";")
_BAR = "|"
"""Used as delimiter only if there is no other: it also separates labels."""
_BATCH_ROWS = 1024


class Table(Protocol):
    """columns: names as written. numbers: row numbers, as programs show them. delimiter: between values."""

    @property
    def delimiter(self) -> str: ...

    @property
    def columns(self) -> Sequence[str]: ...

    @property
    def numbers(self) -> Sequence[int]: ...

    def read(self, place: int, kinds: Collection[str] = ()) -> list[str]:
        """Return a column, `` for missing values; kinds: types accepted besides text: `whole`, `number`, `truth`,
        `list` (of text or integers), `vector` (of other numbers or truth values).

        Raises:
            UsageError: A column of another type.
        """
        ...

    def is_list(self, place: int) -> bool:
        """Return whether each value of a column is a list of text."""
        ...

    def scan(self, place: int) -> Iterable[str]:
        """Return a column of text, numbers, truth values or lists of these, from its beginning; nothing for other
        types.
        """
        ...


def read_table(path: Path, known: Collection[str] = ROLES, data: bytes | None = None) -> Table:
    """Return a table whose file ends in one of LIST_ENDINGS.

    Args:
        path: A CSV in UTF-8, with commas, tabs, semicolons or bars between values; or a Parquet file.
        known: Names of columns to look for; they decide between several possible delimiters.
        data: The file's bytes, if it is in an archive.

    Raises:
        UsageError: Not a CSV.
        ShardError: A damaged Parquet file.
    """
    if read_ending(path.name) == ".parquet":
        return _ParquetTable(path, path if data is None else pa.BufferReader(data))
    return _read_csv(path, read_text(path, data), known)


def read_text(path: Path, data: bytes | None = None) -> str:
    """Return a UTF-8 file, or its bytes if given, as text without a byte order mark.

    Raises:
        UsageError: Not UTF-8.
    """
    try:
        return io.TextIOWrapper(io.BytesIO(path.read_bytes() if data is None else data), "utf-8-sig").read()
    except UnicodeDecodeError as err:
        raise UsageError(f"{path} is not UTF-8 text (byte {err.start:,}); save it again as 'CSV UTF-8'") from err


def find_delimiter(header: str, known: Collection[str] = ROLES) -> str:
    """Return the delimiter of a CSV by its first line: the one that gives most known names.

    >>> [find_delimiter(header) for header in ("path;label, if any;split", "path, label", "path|label", "path,a|b")]
    [';', ',', '|', ',']
    """
    wanted = {fold(name) for name in known}

    def count(delimiter: str) -> int:
        return len(wanted & {fold(name.strip('"')) for name in header.split(delimiter)})

    there = [delimiter for delimiter in _DELIMITERS if delimiter in header] or [_BAR if _BAR in header else ","]
    return max(there, key=count)


def find_lists(names: Iterable[str]) -> list[str]:
    """Return the lists beside the class folders of a folder or archive, by file names; `samples.csv` is not a list.

    >>> find_lists(["in/train.csv", "in/a/1.jpg", "in/a/boxes.csv"]), find_lists(["samples.csv", "b.tsv", "a/x.csv"])
    (['in/train.csv'], ['b.tsv'])
    """
    parts = [name.split("/") for name in names]
    depth = 2 if all(len(each) > 1 for each in parts) and len({each[0] for each in parts}) == 1 else 1
    beside = ["/".join(each) for each in parts if len(each) == depth and each[-1] != SIDECAR]
    return sorted(name for name in beside if read_ending(name) in LIST_ENDINGS)


@dataclass(frozen=True)
class _CsvTable:
    delimiter: str
    columns: Sequence[str]
    numbers: Sequence[int]
    rows: Sequence[Sequence[str]]

    def read(self, place: int, kinds: Collection[str] = ()) -> list[str]:  # noqa: ARG002 (all of a CSV is text)
        return [row[place] for row in self.rows]

    def is_list(self, place: int) -> bool:  # noqa: ARG002 (all of a CSV is text)
        return False

    def scan(self, place: int) -> Iterable[str]:
        return (row[place] for row in self.rows)


def _read_csv(path: Path, text: str, known: Collection[str]) -> Table:
    header = text.lstrip("\r\n").partition("\n")[0].partition("\r")[0]
    delimiter = find_delimiter(header, known)
    columns: list[str] = []
    numbers: list[int] = []
    rows: list[list[str]] = []
    # A blank after the separator does not belong to the value, and would hide its quotes.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        for row in reader:
            if not row:
                continue
            if not columns:
                columns = _show_blanks(row, header, delimiter)
                continue
            if len(row) != len(columns):
                raise UsageError(
                    f"{path} row {reader.line_num} has {'more' if len(row) > len(columns) else 'fewer'} values than "
                    f"the {len(columns)} columns; put a value that contains the separator into quotes"
                )
            numbers.append(reader.line_num)
            rows.append(row)
    except csv.Error as err:
        last = numbers[-1] if numbers else min(len(columns), 1)
        raise UsageError(f"{path} cannot be read after row {last} ({err}); save it again as CSV") from err
    return _CsvTable(delimiter, columns, numbers, rows)


def _show_blanks(columns: list[str], header: str, delimiter: str) -> list[str]:
    """Return column names with their leading blanks, which the reader has dropped."""
    written = header.split(delimiter)
    same = len(written) == len(columns) and all(a.strip() == b.strip() for a, b in zip(written, columns, strict=True))
    return written if same else columns


class _ParquetTable:
    delimiter = ","

    def __init__(self, path: Path, file: Path | pa.BufferReader) -> None:
        self._path = path
        try:
            self._file = pq.ParquetFile(file)
        except pa.ArrowException as err:
            raise self._explain(err) from err
        self._schema = self._file.schema_arrow
        self.columns: Sequence[str] = self._schema.names
        self.numbers: Sequence[int] = range(1, self._file.metadata.num_rows + 1)

    def read(self, place: int, kinds: Collection[str] = ()) -> list[str]:
        field = self._schema.field(place)
        found = _name_kind(field.type)
        if found not in ("text", *kinds):
            remedy = ", or give --labels-as list if these are labels" if found == "list" else ""
            raise UsageError(f"{self._path}: column {field.name} is {field.type}; write it as text{remedy}")
        return list(self._iterate(place, len(self.numbers) or 1))

    def is_list(self, place: int) -> bool:
        return _name_kind(self._schema.field(place).type) == "list"

    def scan(self, place: int) -> Iterable[str]:
        unique = self.columns.count(self.columns[place]) == 1
        if unique and _name_kind(self._schema.field(place).type) != "other":
            yield from self._iterate(place, _BATCH_ROWS)

    def _iterate(self, place: int, rows: int) -> Iterator[str]:
        name = self.columns[place]
        try:
            for batch in self._file.iter_batches(rows, columns=[name]):
                # A name with a dot also selects inner columns of a nested one, so more than one column may come.
                values = batch.column(batch.schema.get_field_index(name)).to_pylist()
                yield from ("" if value is None else str(value) for value in values)
        except pa.ArrowException as err:
            raise self._explain(err) from err

    def _explain(self, err: pa.ArrowException) -> ShardError:
        return ShardError(f"{self._path} is damaged or not a Parquet file ({err}); fetch or write it again")


def _name_kind(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return "text"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inside = _name_kind(kind.value_type)
        return {"text": "list", "whole": "list", "number": "vector", "truth": "vector"}.get(inside, "other")
    names = {"whole": pa.types.is_integer, "number": pa.types.is_floating, "truth": pa.types.is_boolean}
    return next((name for name, fits in names.items() if fits(kind)), "other")
