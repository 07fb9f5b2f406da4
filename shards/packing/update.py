"""What `--update` builds on: a finished dataset, whose shards are left alone."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shards.audit.examine import FACTS_SCHEMA, Examined, spool_thumbnails
from shards.audit.table import NAME as AUDIT_TABLE
from shards.errors import ShardError, UsageError
from shards.fingerprint import hash_bytes
from shards.index import index_name
from shards.manifest import INDEXED, MANIFEST_NAME, Manifest, parse_manifest
from shards.packing.cut import Start
from shards.packing.options import PackOptions
from shards.sources.model import Source, SourceList, Store
from shards.splits import SplitOptions
from shards.storage import Storage

MIX_WARNING = 0.1
"""Share of samples that would have to change class for the new shards to have the mix of the old ones."""


@dataclass(frozen=True)
class Base:
    """The pictures that a dataset holds already; without a manifest, none.

    rows: of the shard table. sources: as they were packed, each with its split.
    examined: what the audit knew of them; None where they were not audited.
    """

    manifest: Manifest | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    examined: Examined | None = None

    def start(self) -> Start:
        """Return the numbers after the last ones."""
        if self.manifest is None:
            return Start()
        shards = Counter(row["split"] for row in self.rows)
        return Start(sum(row["count"] for row in self.rows), shards, self.manifest.updates + 1)

    def joined(self, examined: Examined) -> Examined:
        """Return the facts of the old pictures and of new ones, in this order."""
        if self.examined is None:
            return examined
        both = [self.examined, examined]
        return Examined(
            pa.concat_tables([part.facts for part in both]), spool_thumbnails([part.thumbnails for part in both])
        )


def read_base(storage: Storage, options: PackOptions) -> Base:
    """Return what a finished dataset holds.

    Raises:
        UsageError: There is none, or one that was packed with other options.
        ShardError: It is damaged.
    """
    try:
        manifest = parse_manifest(storage.read(MANIFEST_NAME), f"{storage}/{MANIFEST_NAME}")
    except FileNotFoundError as err:
        raise UsageError(f"{storage} holds no finished dataset to update; pack without --update first") from err
    _refuse_other_options(manifest, options)
    rows = read_rows(storage, manifest)
    sources = [source for row in rows for source in _read_sources(storage, row, manifest.classes)]
    if manifest.audited.level == "none":
        return Base(manifest, rows, sources)
    return _with_facts(Base(manifest, rows, sources), storage)


def read_rows(storage: Storage, manifest: Manifest) -> list[dict[str, Any]]:
    """Return the rows of the shard table.

    Raises:
        ShardError: It is missing, or not the one that the manifest names.
    """
    try:
        table = storage.read(manifest.table)
    except FileNotFoundError as err:
        raise ShardError(f"{storage}/{manifest.table} is missing; restore it from a backup or pack again") from err
    if hashlib.sha256(table).hexdigest() != manifest.table_sha256:
        raise ShardError(
            f"{storage}/{manifest.table}: sha256 differs from {MANIFEST_NAME}; restore it from a backup or pack again"
        )
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(table)).to_pylist()
    return rows


def _refuse_other_options(manifest: Manifest, options: PackOptions) -> None:
    if manifest.packing.plan.startswith(INDEXED):
        raise UsageError(
            "the dataset was indexed, not packed, and an update would not know how its shards are numbered; "
            "pack the tars and the new pictures into a new folder"
        )
    store = options.store
    quality = store.quality if store.max_side else None
    asked = [store.decode, store.max_side, quality, options.audit]
    packed = manifest.packing
    if asked != [packed.decode, packed.max_side, packed.quality, manifest.audited.level]:
        shrunk = f"max_side {packed.max_side}, quality {packed.quality}"
        said = f"--audit {manifest.audited.level}, {shrunk}, {packed.decode}"
        raise UsageError(f"the dataset was packed with other options ({said}); update it with the same ones")
    if options.split.fraction < 1:
        raise UsageError("--fraction and --update do not go together: the pictures left out would all be added")


def _read_sources(storage: Storage, row: dict[str, Any], classes: list[str]) -> list[Source]:
    index = storage.read(index_name(row["name"]))
    if hashlib.sha256(index).hexdigest() != row["index_sha256"]:
        raise ShardError(
            f"{storage}/{index_name(row['name'])}: sha256 differs from the shard table; "
            "restore it from a backup or pack again"
        )
    columns = ["source", "labels", "weight", "group", "length"]
    return [
        Source(
            name=item["source"],
            labels=tuple(classes[label] for label in item["labels"]),
            split=row["split"],
            size=item["length"],
            weight=item["weight"],
            group=item["group"],
        )
        for item in pq.read_table(io.BytesIO(index), columns=columns).to_pylist()
    ]


def _with_facts(base: Base, storage: Storage) -> Base:
    """Return the base with what the audit knew; sizes are those of the source files, not of what was stored."""
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
    facts = mine.select([name for name in FACTS_SCHEMA.names if name != "thumbnail"])
    facts = facts.cast(pa.schema([FACTS_SCHEMA.field(name) for name in facts.column_names]))
    thumbnails = np.frombuffer(b"".join(mine["thumbnail"].to_pylist()), np.uint8).reshape(len(sources), -1)
    return replace(base, sources=sources, examined=Examined(facts, spool_thumbnails([thumbnails])))


def leave_out(base: Base, listed: SourceList) -> SourceList:
    """Return the pictures that the dataset does not have yet.

    Raises:
        UsageError: A class that the dataset does not have, or another kind of labels.
        ShardError: A picture that is not what was packed under its name.
    """
    if base.manifest is None:
        return listed
    _refuse_other_task(base.manifest, listed)
    unknown = sorted(set(listed.classes) - set(base.manifest.classes))
    if unknown:
        raise UsageError(
            f"class '{unknown[0]}' is new, and an update keeps the classes as they are "
            f"({', '.join(base.manifest.classes)}), because labels are positions in that list; pack into a new folder"
        )
    old = {source.name: row for row, source in enumerate(base.sources)}
    both = [(source, old[source.name]) for source in listed.sources if source.name in old]
    _refuse_changed(base, listed.store, both)
    notes = list(listed.notes)
    if len(both) < len(old):
        notes.append(f"{len(old) - len(both):,} pictures of the dataset are no longer in the source; they stay in it")
    names = dict(zip(base.manifest.classes, base.manifest.display_names, strict=True))
    shown = zip(listed.classes, listed.display_names or listed.classes, strict=True)
    if any(name not in (label, names[label]) for label, name in shown):
        notes.append("the classes keep the display names with which they were packed")
    new = [source for source in listed.sources if source.name not in old]
    return replace(listed, sources=new, classes=base.manifest.classes, notes=notes)


def keep_published(base: Base, listed: SourceList, split: SplitOptions) -> tuple[list[Source], SplitOptions]:
    """Return the old and the new pictures, and the options that deal out the new ones.

    Merged splits are dealt out anew among the new pictures only: those of the dataset stay where they are.
    """
    if base.manifest is None or not split.merge:
        return [*base.sources, *listed.sources], split
    new = [replace(source, split=None) if source.split in split.merge else source for source in listed.sources]
    shares = {name: share for name, share in split.shares.items() if name in split.merge}
    return [*base.sources, *new], split.model_copy(update={"merge": (), "shares": shares})


def _refuse_other_task(manifest: Manifest, listed: SourceList) -> None:
    unlabelled = not listed.classes
    if unlabelled != (manifest.task == "unlabelled") or (listed.multi_label and manifest.task == "single-label"):
        given = "unlabelled" if unlabelled else "multi-label" if listed.multi_label else "labelled"
        raise UsageError(f"the new pictures are {given} and the dataset is {manifest.task}; pack into a new folder")


def _refuse_changed(base: Base, store: Store, both: Sequence[tuple[Source, int]]) -> None:
    for source, row in both:
        packed = base.sources[row]
        if set(source.labels) != set(packed.labels):
            raise ShardError(
                f"{source.name} is labelled {' and '.join(source.labels)} now and was packed as "
                f"{' and '.join(packed.labels)}; an update adds pictures only, pack into a new folder"
            )
        if source.group != packed.group:
            raise ShardError(
                f"{source.name} is of group '{source.group}' now and was packed as of group '{packed.group}', so what "
                "belongs together could be torn apart; give the groups as they were given then"
            )
    if base.examined is None:
        return
    hashes = base.examined.facts["bytes_xxh3"]
    rows = {source.name: row for source, row in both}
    for source, data in store.read_in_order(source for source, _ in both):
        if hash_bytes(data) != hashes[rows[source.name]].as_py():
            raise ShardError(
                f"{source.name} is not the picture that was packed under this name; "
                "an update adds pictures only: give it another name, or pack into a new folder"
            )


def compare_mix(base: Base, rows: list[dict[str, Any]]) -> str | None:
    """Return a warning when the new shards' classes are mixed otherwise than the old ones'."""
    if not base.rows or not rows:
        return None
    old, new = (np.sum([row["class_counts"] for row in part], axis=0, dtype=float) for part in (base.rows, rows))
    if old.sum() == 0 or new.sum() == 0:
        return None
    distance = float(np.abs(old / old.sum() - new / new.sum()).sum() / 2)
    if distance <= MIX_WARNING:
        return None
    return (
        f"the classes of the new shards are mixed otherwise than those of the old ones ({distance:.0%} of the samples "
        "would have to change class): batches that draw from few shards will feel it; pack everything into a new "
        "folder for an even mix"
    )
