"""The finished dataset that `--update` extends; its shards are not changed."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shards.audit.examine import FACTS_SCHEMA, LATER, Examined, spool_thumbnails
from shards.audit.table import NAME as AUDIT_TABLE
from shards.dataset.index import parse_shards
from shards.dataset.manifest import INDEXED, MANIFEST_NAME, Manifest, parse_manifest
from shards.errors import ShardError, UsageError
from shards.packing.cut import Start
from shards.packing.options import PackOptions
from shards.sources.model import Source, SourceList
from shards.splits.splits import SplitOptions
from shards.storage.storage import Storage

MIX_WARNING = 0.1
"""Share of samples that would have to change class for the new shards to have the old ones' mix."""


@dataclass(frozen=True)
class Base:
    """The pictures already in a dataset; none without a manifest.

    rows: of the shard table. sources: each with its split, in the order of the shards, as they were packed; rows in
    `changed` have their present weight and group.
    hashes: xxh3-128 of the file bytes that the audit read, or without an audit of the stored bytes.
    examined: the audit's facts; None without an audit.
    made: rows whose shards hold other bytes than their file had, as far as known.
    """

    manifest: Manifest | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    examined: Examined | None = None
    made: frozenset[int] = frozenset()
    changed: frozenset[int] = frozenset()

    def with_changes(self, changes: Mapping[int, Source]) -> Base:
        """Return a copy with other weights or groups for some pictures, by row."""
        if not changes:
            return self
        sources = [changes.get(row, source) for row, source in enumerate(self.sources)]
        return replace(self, sources=sources, changed=frozenset(changes))

    def start(self) -> Start:
        """Return the numbers after the last ones in use."""
        if self.manifest is None:
            return Start()
        shards = Counter(row["split"] for row in self.rows)
        return Start(sum(row["count"] for row in self.rows), shards, self.manifest.updates + 1)

    def joined(self, examined: Examined) -> Examined:
        """Return the facts of the old pictures followed by those of new ones."""
        if self.examined is None:
            return examined
        both = [self.examined, examined]
        return Examined(
            pa.concat_tables([part.facts for part in both]), spool_thumbnails([part.thumbnails for part in both])
        )


def read_base(storage: Storage, options: PackOptions) -> Base:
    """Return the content of a finished dataset.

    Raises:
        UsageError: There is none, or it was packed with other options.
        ShardError: It is damaged.
    """
    try:
        manifest = parse_manifest(storage.read(MANIFEST_NAME), f"{storage}/{MANIFEST_NAME}")
    except FileNotFoundError as err:
        raise UsageError(f"{storage} holds no finished dataset to update; pack without --update first") from err
    _refuse_other_options(manifest, options)
    rows = read_rows(storage, manifest)
    pairs = [pair for row in rows for pair in _read_sources(storage, row, manifest.classes)]
    base = Base(manifest, rows, [source for source, _ in pairs], [digest for _, digest in pairs])
    return base if manifest.audited.level == "none" else _with_facts(base, storage)


def read_rows(storage: Storage, manifest: Manifest) -> list[dict[str, Any]]:
    """Return the rows of the shard table.

    Raises:
        ShardError: It is missing, or differs from the one that the manifest names.
    """
    try:
        table = storage.read(manifest.table)
    except FileNotFoundError as err:
        raise ShardError(f"{storage}/{manifest.table} is missing; restore it from a backup or pack again") from err
    if hashlib.sha256(table).hexdigest() != manifest.table_sha256:
        raise ShardError(
            f"{storage}/{manifest.table}: sha256 differs from {MANIFEST_NAME}; restore it from a backup or pack again"
        )
    rows: list[dict[str, Any]] = parse_shards(table, f"{storage}/{manifest.table}").to_pylist()
    return rows


def _refuse_other_options(manifest: Manifest, options: PackOptions) -> None:
    if manifest.packing.plan.startswith(INDEXED):
        raise UsageError(
            "the dataset was indexed, not packed, so an update cannot know how its shards are numbered; pack the "
            "tars and the new pictures into a new folder"
        )
    store = options.store
    quality = store.quality if store.max_side else None
    asked = [store.decode, store.max_side, quality, options.audit]
    packed = manifest.packing
    if asked != [packed.decode, packed.max_side, packed.quality, manifest.audited.level]:
        shrunk = f"max_side {packed.max_side}, quality {packed.quality}"
        said = f"--audit {manifest.audited.level}, {shrunk}, {packed.decode}"
        raise UsageError(f"the dataset was packed with other options ({said}); update it with the same options")
    if options.split.fraction < 1:
        raise UsageError("--fraction and --update do not go together: all pictures that were left out would be added")


def _read_sources(storage: Storage, row: dict[str, Any], classes: list[str]) -> list[tuple[Source, str]]:
    """Return the pictures of a shard, each with the hash of its stored bytes."""
    index = storage.read(row["index"])
    if hashlib.sha256(index).hexdigest() != row["index_sha256"]:
        raise ShardError(
            f"{storage}/{row['index']}: sha256 differs from the shard table; restore it from a backup or pack again"
        )
    columns = ["source", "labels", "weight", "group", "length", "bytes_xxh3"]
    return [
        (
            Source(
                name=item["source"],
                labels=tuple(classes[label] for label in item["labels"]),
                split=row["split"],
                size=item["length"],
                weight=item["weight"],
                group=item["group"],
            ),
            item["bytes_xxh3"],
        )
        for item in pq.read_table(io.BytesIO(index), columns=columns).to_pylist()
    ]


def _with_facts(base: Base, storage: Storage) -> Base:
    """Return the base with the audit's facts; sizes are those of the source files, not of the stored pictures."""
    try:
        table = pq.read_table(io.BytesIO(storage.read(AUDIT_TABLE)))
    except (OSError, pa.ArrowException) as err:
        raise ShardError(
            f"{storage}/{AUDIT_TABLE} cannot be read ({err}), so new pictures cannot be compared with the old ones; "
            "restore it from a backup or pack again"
        ) from err
    row_of = {name: row for row, name in enumerate(table["source"].to_pylist())}
    missing = [source.name for source in base.sources if source.name not in row_of]
    if missing:
        raise ShardError(f"{storage}/{AUDIT_TABLE} does not know {missing[0]}; restore it from a backup or pack again")
    mine = table.take([row_of[source.name] for source in base.sources])
    sizes = mine["size"].to_pylist()
    sources = [replace(source, size=size) for source, size in zip(base.sources, sizes, strict=True)]
    for name, value in LATER.items():
        if name not in mine.column_names:
            mine = mine.append_column(name, pa.array([value] * len(mine), FACTS_SCHEMA.field(name).type))
    facts = mine.select([name for name in FACTS_SCHEMA.names if name != "thumbnail"])
    facts = facts.cast(pa.schema([FACTS_SCHEMA.field(name) for name in facts.column_names]))
    thumbnails = np.frombuffer(b"".join(mine["thumbnail"].to_pylist()), np.uint8).reshape(len(sources), -1)
    hashes = mine["bytes_xxh3"].to_pylist()
    made = frozenset(row for row, (stored, file) in enumerate(zip(base.hashes, hashes, strict=True)) if stored != file)
    examined = Examined(facts, spool_thumbnails([thumbnails]))
    return replace(base, sources=sources, hashes=hashes, examined=examined, made=made)


def keep_published(base: Base, listed: SourceList, split: SplitOptions) -> tuple[list[Source], SplitOptions]:
    """Return the old and the new pictures, and the options that split the new ones.

    Merged splits are resplit only among new pictures: those of the dataset stay where they are.
    """
    if base.manifest is None or not split.merge:
        return [*base.sources, *listed.sources], split
    new = [replace(source, split=None) if source.split in split.merge else source for source in listed.sources]
    shares = {name: share for name, share in split.shares.items() if name in split.merge}
    return [*base.sources, *new], split.model_copy(update={"merge": (), "shares": shares})


def compare_mix(base: Base, rows: list[dict[str, Any]]) -> str | None:
    """Return a warning if the new shards have another mix of classes than the old ones."""
    if not base.rows or not rows:
        return None
    old, new = (np.sum([row["class_counts"] for row in part], axis=0, dtype=float) for part in (base.rows, rows))
    if old.sum() == 0 or new.sum() == 0:
        return None
    distance = float(np.abs(old / old.sum() - new / new.sum()).sum() / 2)
    if distance <= MIX_WARNING:
        return None
    return (
        f"the new shards have another mix of classes than the old ones ({distance:.0%} of the samples would have to "
        "change class), which affects batches that draw from few shards; pack everything into a new folder for an "
        "even mix"
    )
