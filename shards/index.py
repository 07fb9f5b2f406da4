"""The two tables of a dataset: the index of one shard, a row a sample, and the shard table, a row a shard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shards.errors import ShardError
from shards.files import write_atomically

INDEX_SCHEMA = pa.schema(
    [
        ("sample_id", pa.int64()),
        ("key", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("label", pa.int32()),
        ("weight", pa.float32()),
        ("group", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("mode", pa.string()),
        ("pixels_xxh3", pa.string()),
        ("source", pa.string()),
    ]
)
"""offset and length: of the picture's bytes in the tar; group: empty where there is none."""

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
"""name: path of the tar below the dataset, `train/000000.tar`; first_id: sample id of its first row."""


def write_table(
    path: Path, rows: list[dict[str, Any]], schema: pa.Schema, facts: Mapping[str, str] | None = None
) -> None:
    """Write rows as Parquet, atomically; `facts` go into the file's metadata."""
    table = pa.Table.from_pylist(rows, schema=schema.with_metadata(dict(facts or {})))
    with write_atomically(path) as file:
        pq.write_table(table, file, compression="zstd")


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Return a Parquet table of the given schema.

    Raises:
        ShardError: Missing, damaged, or of another schema.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError as err:
        raise ShardError(f"{path} is missing; restore it from a backup or pack again") from err
    except (pa.ArrowException, OSError) as err:
        raise ShardError(f"{path} cannot be read ({err}); restore it from a backup or pack again") from err
    if not table.schema.equals(schema, check_metadata=False):
        raise ShardError(
            f"{path} has other columns than this version reads: {', '.join(table.schema.names)}; pack again"
        )
    return table


def read_facts(path: Path) -> dict[str, str]:
    """Return the metadata that `write_table` put into a file.

    Raises:
        ShardError: Damaged.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError) as err:
        raise ShardError(f"{path} cannot be read ({err}); restore it from a backup or pack again") from err
    return {key.decode(): value.decode() for key, value in metadata.items() if not key.startswith(b"ARROW:")}
