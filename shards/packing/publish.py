"""The shard table, the quarantine list, and last `dataset.json`, which makes the folder a dataset."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable
from typing import Any

from shards.dataset.index import build_shards, encode_table
from shards.dataset.manifest import MANIFEST_NAME, TABLE_NAME, Manifest, summarise_splits
from shards.packing.claim import QUARANTINE, release_target
from shards.sources.model import SPLITS
from shards.storage.storage import Storage


def publish(storage: Storage, rows: list[dict[str, Any]], draft: Manifest) -> Manifest:
    """Seal the dataset of `rows`, then remove what only an unfinished dataset needs."""
    manifest = seal(storage, rows, draft)
    release_target(storage, manifest, name_shards(rows))
    return manifest


def seal(storage: Storage, rows: list[dict[str, Any]], draft: Manifest) -> Manifest:
    """Write the table of `rows`, then the manifest: `draft` completed with table, digests and summaries."""
    rows = sorted(rows, key=lambda row: (SPLITS.index(row["split"]), row["name"]))
    table = encode_table(build_shards(rows))
    name = TABLE_NAME if draft.updates == 0 else f"shards.{draft.updates}.parquet"
    storage.write(name, table)
    manifest = draft.model_copy(
        update={
            "table": name,
            "table_sha256": hashlib.sha256(table).hexdigest(),
            "splits": summarise_splits(rows),
        }
    )
    storage.write(MANIFEST_NAME, manifest.encode())
    return manifest


def name_shards(rows: Iterable[dict[str, Any]]) -> set[str]:
    """Return the names of the shards in rows of a shard table, without an ending."""
    return {row["name"].removesuffix(".tar") for row in rows}


def write_quarantine(storage: Storage, rejected: Iterable[tuple[str, str]]) -> None:
    """Write `quarantine.csv`: path and reason of every picture that is left out for a fault."""
    text = io.StringIO()
    csv.writer(text).writerows([("path", "reason"), *rejected])
    storage.write(QUARANTINE, text.getvalue().encode())
