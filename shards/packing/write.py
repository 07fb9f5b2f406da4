"""Writing shards to a storage: each tar is published whole, and its index after it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shards.dataset.index import INDEX_SCHEMA, build_table, encode_table, index_name, read_facts
from shards.errors import DecodeError, ShardError
from shards.files.fingerprint import hash_bytes
from shards.packing.encode import Stored, StoreOptions, refuse_undecodable, store_picture
from shards.packing.tar import TarWriter
from shards.pictures.decode import inspect
from shards.sources.model import Source, Store
from shards.storage.storage import Storage

_quote = json.encoder.encode_basestring


@dataclass(frozen=True)
class Setting:
    """What all shards of a dataset have in common."""

    storage: Storage
    store: Store
    options: StoreOptions
    labels: dict[str, int]
    """Class number by class name."""
    plan: str
    """Identity of the plan; stored in every index, so that a shard of another plan is never taken for one of this
    plan.
    """


@dataclass(frozen=True, slots=True)
class ShardJob:
    """One shard to write.

    bytes_xxh3, pixels_xxh3: the audit's hashes of each source; None without an audit.
    data: bytes of each source, if the writing process cannot read them itself.
    """

    split: str
    name: str
    first_id: int
    sources: Sequence[Source]
    bytes_xxh3: Sequence[str] | None
    pixels_xxh3: Sequence[str] | None
    data: Sequence[bytes] | None = None


def write_shard(setting: Setting, job: ShardJob) -> dict[str, Any]:
    """Write one shard and its index; return its row of the shard table.

    Raises:
        ShardError: A picture has changed since the audit, or cannot be decoded.
        OSError: The target cannot be written.
    """
    rows = _Rows()
    with setting.storage.writing(job.name) as file:
        writer = TarWriter(file)
        for number, source in enumerate(job.sources):
            _add_sample(setting, job, number, source, writer, rows)
        sha256 = writer.finish()
    facts = {"plan": setting.plan, "bytes": str(writer.size), "sha256": sha256}
    index = encode_table(build_table(rows.columns(), INDEX_SCHEMA, facts))
    setting.storage.write(index_name(job.name), index)
    return _describe(setting, job, facts, index)


def find_written(setting: Setting, job: ShardJob, sizes: dict[str, int]) -> dict[str, Any] | None:
    """Return the row of a shard that an earlier run of this plan finished, None if there is none.

    The index is written after its tar, so an index of this plan beside a tar of the recorded size means a finished
    shard.
    """
    if job.name not in sizes or index_name(job.name) not in sizes:
        return None
    index = setting.storage.read(index_name(job.name))
    try:
        facts = read_facts(index)
    except ShardError:  # truncated by a power failure
        return None
    if facts.get("plan") != setting.plan or facts.get("bytes") != str(sizes[job.name]):
        return None
    return _describe(setting, job, facts, index)


def _describe(setting: Setting, job: ShardJob, facts: dict[str, str], index: bytes) -> dict[str, Any]:
    numbers = [setting.labels[label] for source in job.sources for label in source.labels]
    return {
        "split": job.split,
        "name": job.name,
        "bytes": int(facts["bytes"]),
        "count": len(job.sources),
        "first_id": job.first_id,
        "class_counts": np.bincount(np.array(numbers, dtype=np.int64), minlength=len(setting.labels)).tolist(),
        "sha256": facts["sha256"],
        "index_sha256": hashlib.sha256(index).hexdigest(),
    }


@dataclass
class _Rows:
    """The columns of a growing index."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)

    def columns(self) -> dict[str, Sequence[Any]]:
        return dict(zip(INDEX_SCHEMA.names, zip(*self.rows, strict=True), strict=True))


def _add_sample(setting: Setting, job: ShardJob, number: int, source: Source, writer: TarWriter, rows: _Rows) -> None:
    sample_id = job.first_id + number
    stored, pixels = _store(setting, job, number, source)
    key = f"{sample_id:09d}"
    labels = [setting.labels[label] for label in source.labels]
    files = {stored.ending: stored.data}
    if len(labels) == 1:
        files["cls"] = b"%d" % labels[0]
    files["json"] = _facts(source).encode()
    offset = writer.add(key, files)
    rows.rows.append(
        (
            sample_id,
            key,
            offset,
            len(stored.data),
            labels[0] if len(labels) == 1 else -1,
            labels,
            source.weight,
            source.group,
            stored.width,
            stored.height,
            stored.mode,
            hash_bytes(stored.data),
            pixels,
            source.name,
        )
    )


def _facts(source: Source) -> str:
    """Return the JSON beside a picture: source and weight, label or labels, and group, as far as it has them."""
    # Written directly: json.dumps takes a tenth of all work on a picture of 60 KB.
    group = f'"group": {_quote(source.group)}, ' if source.group else ""
    names = ", ".join(map(_quote, source.labels))
    labels = f'"labels": [{names}], ' if len(source.labels) > 1 else f'"label": {names}, ' if source.labels else ""
    return f'{{{group}{labels}"source": {_quote(source.name)}, "weight": {float(source.weight)!r}}}'


def _store(setting: Setting, job: ShardJob, number: int, source: Source) -> tuple[Stored, str]:
    """Return what is stored of a source, and the hash of its pixels if it was audited."""
    data = _read(setting, job, number, source)
    try:
        stored = store_picture(data, setting.options)
        if job.pixels_xxh3 is None:
            if stored.data is not data:
                _refuse_guessed_range(data, setting.options)
            return stored, ""
        # A shrunk picture has other pixels than the audited one.
        shrunk = setting.options.max_side is not None and stored.data is not data
        return stored, inspect(stored.data).pixels_xxh3 if shrunk else job.pixels_xxh3[number]
    except DecodeError as err:
        raise refuse_undecodable(source, err) from err


def _read(setting: Setting, job: ShardJob, number: int, source: Source) -> bytes:
    try:
        data = setting.store.read(source) if job.data is None else job.data[number]
    except FileNotFoundError as err:
        raise ShardError(
            f"{source.name} vanished while the pictures were packed; nothing was published. "
            "Put it back and run the command again, or remove it for good and run it again"
        ) from err
    changed = job.bytes_xxh3 is not None and hash_bytes(data) != job.bytes_xxh3[number]
    if changed or len(data) != source.size:
        raise ShardError(
            f"{source.name} changed while the pictures were packed; nothing was published. Run the command again"
        )
    return data


def _refuse_guessed_range(data: bytes, options: StoreOptions) -> None:
    """Raise for a picture of more than 8 bits a channel whose white is known only from its bits, if no range is given.

    Only an audit of all pictures could determine the range.
    """
    if options.decode.gray_range is None and inspect(data, options.decode).peak > 0:
        raise DecodeError("deep gray of unknown range: give --bits or --range")
