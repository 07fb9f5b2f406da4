"""New weights and groups of packed pictures, in indexes beside the old ones, which may be in use."""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa

from shards.dataset.index import INDEX_SCHEMA, encode_table, name_update, parse_table
from shards.packing.update import Base
from shards.storage.storage import Storage


def reindex(storage: Storage, base: Base) -> list[dict[str, Any]]:
    """Write new indexes for shards with changed pictures; return the rows of the shard table that name them.

    The published table names the old indexes until the next table is published.
    """
    if base.manifest is None or not base.changed:
        return base.rows
    rows: list[dict[str, Any]] = []
    first = 0
    for row in base.rows:
        members = range(first, first + row["count"])
        first += row["count"]
        if base.changed.isdisjoint(members):
            rows.append(row)
            continue
        table = parse_table(storage.read(row["index"]), f"{storage}/{row['index']}", INDEX_SCHEMA)
        for column in ("weight", "group"):
            place = INDEX_SCHEMA.get_field_index(column)
            values = [getattr(base.sources[member], column) for member in members]
            table = table.set_column(place, INDEX_SCHEMA.field(place), pa.array(values, INDEX_SCHEMA.field(place).type))
        encoded, name = encode_table(table), name_update(row["name"], base.manifest.updates + 1)
        storage.write(name, encoded)
        rows.append(row | {"index": name, "index_sha256": hashlib.sha256(encoded).hexdigest()})
    return rows
