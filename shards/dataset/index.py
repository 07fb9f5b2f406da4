"""The two tables of a dataset: the index of a shard, a row per sample, and the shard table, a row per shard."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shards.errors import ShardError

INDEX_SCHEMA = pa.schema(
    [
        ("sample_id", pa.int64()),
        ("key", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("label", pa.int32()),
        ("labels", pa.list_(pa.int32())),
        ("weight", pa.float32()),
        ("group", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("mode", pa.string()),
        ("bytes_xxh3", pa.string()),
        ("pixels_xxh3", pa.string()),
        ("source", pa.string()),
    ]
)
"""offset and length: of the picture's bytes in the tar; label: -1 if a sample has none or several; labels: all of them;
width, height, mode: of the stored picture; bytes_xxh3: of its bytes, which every reader compares; pixels_xxh3: of its
decoded pixels, empty if it was not audited; group: empty if there is none."""

SHARD_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("name", pa.string()),
        ("bytes", pa.int64()),
        ("count", pa.int64()),
        ("first_id", pa.int64()),
        ("class_counts", pa.list_(pa.int64())),
        ("sha256", pa.string()),
        ("index_sha256", pa.string()),
    ]
)
"""name: path of the tar in the dataset, `train/000000.tar`; first_id: sample id of its first row; class_counts: a
sample with several labels counts once for each."""

_PLAIN = re.compile(r"(?:[\w-][\w.-]*/)*[\w-]+")  # nothing in it that a path object would change

INDEX_COLUMN = "index"
"""An additional column, if an update gave shards other index files than `index_name` returns."""


def index_name(shard: str) -> str:
    """Return the name of a shard's index.

    >>> index_name("train/000000.tar")
    'train/000000.index.parquet'
    """
    stem = shard.removesuffix(".tar")
    if stem != shard and _PLAIN.fullmatch(stem):  # a path object a shard takes 10 s for 1e6 shards
        return f"{stem}.index.parquet"
    return PurePosixPath(shard).with_suffix(".index.parquet").as_posix()


def name_update(shard: str, update: int) -> str:
    """Return the name of the index file that the nth update writes for an existing shard.

    >>> name_update("train/000000.tar", 2)
    'train/000000.index.2.parquet'
    """
    return PurePosixPath(shard).with_suffix(f".index.{update}.parquet").as_posix()


def build_shards(rows: list[dict[str, Any]]) -> pa.Table:
    """Return a shard table; the index file of a row is in its `index`, or named by `index_name`."""
    named = [row | {INDEX_COLUMN: row.get(INDEX_COLUMN) or index_name(row["name"])} for row in rows]
    usual = all(row[INDEX_COLUMN] == index_name(row["name"]) for row in named)
    return build_table(named, SHARD_SCHEMA if usual else SHARD_SCHEMA.append(pa.field(INDEX_COLUMN, pa.string())))


def parse_shards(data: bytes, where: object) -> pa.Table:
    """Return the shard table in `data`, always with the column `index`.

    Raises:
        ShardError: Damaged, or of another schema.
    """
    named = SHARD_SCHEMA.append(pa.field(INDEX_COLUMN, pa.string()))
    table = parse_table(data, where, SHARD_SCHEMA, named)
    if INDEX_COLUMN not in table.column_names:
        names = [index_name(name) for name in table["name"].to_pylist()]
        table = table.append_column(named.field(INDEX_COLUMN), pa.array(names, pa.string()))
    return table


def build_table(
    content: list[dict[str, Any]] | Mapping[str, Sequence[Any]],
    schema: pa.Schema,
    facts: Mapping[str, str] | None = None,
) -> pa.Table:
    """Return rows, or columns by name, as a table of the schema; `facts` become the file's metadata."""
    schema = schema.with_metadata(dict(facts or {}))
    return pa.Table.from_pylist(content, schema) if isinstance(content, list) else pa.Table.from_pydict(content, schema)


def encode_table(table: pa.Table) -> bytes:
    """Return a table as the bytes of a Parquet file."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    encoded: bytes = buffer.getvalue().to_pybytes()
    return encoded


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Return a Parquet table of the given schema.

    Raises:
        ShardError: Missing, damaged, or of another schema.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as err:
        raise ShardError(f"{path} is missing; restore it from a backup or pack again") from err
    except OSError as err:
        raise ShardError(f"{path} cannot be read ({err}); restore it from a backup or pack again") from err
    return parse_table(data, path, schema)


def parse_table(data: bytes, where: object, *schemas: pa.Schema) -> pa.Table:
    """Return the Parquet table in `data`, which must have one of the schemas.

    Raises:
        ShardError: Damaged, or of another schema.
    """
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as err:
        raise ShardError(f"{where} cannot be read ({err}); restore it from a backup or pack again") from err
    if not any(table.schema.equals(schema, check_metadata=False) for schema in schemas):
        raise ShardError(
            f"{where} has other columns than this version reads: {', '.join(table.schema.names)}; pack again"
        )
    return table


def read_facts(data: bytes) -> dict[str, str]:
    """Return the metadata that `build_table` stored in a Parquet file.

    Raises:
        ShardError: Damaged.
    """
    try:
        metadata = pq.read_schema(pa.BufferReader(data)).metadata or {}
    except (pa.ArrowException, OSError) as err:
        raise ShardError(f"a Parquet file of {len(data):,} bytes cannot be read ({err})") from err
    return {key.decode(): value.decode() for key, value in metadata.items() if not key.startswith(b"ARROW:")}
