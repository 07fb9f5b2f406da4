"""Decoding of every picture, once, by many processes; a journal keeps finished chunks when the command is killed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from shards.audit.facts import THUMBNAIL_BYTES, Facts, Rejected, examine
from shards.dataset.index import encode_table
from shards.files.disk import MOVE_TEMPORARIES, naming_disk
from shards.files.sizes import format_size
from shards.pictures.decode import DecodeOptions
from shards.pictures.decoding import VERSION as DECODING
from shards.sources.load import load_chunks
from shards.sources.model import Source, SourceList, Store
from shards.storage.storage import Storage
from shards.workers.pools import Pool

CHUNK = 256
"""Pictures of one task and of one journal file: the most that a kill costs per worker."""
JOURNAL = ".packing/audit/"
VERSION = 2
"""Increase it when a fact is computed differently: journals of older versions are then ignored."""

Progress = Callable[[str, int, int, int], None]
"""Called as progress(stage, pictures done, pictures in all, bytes of the pictures that this call reports)."""

FACTS_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("kind", pa.string()),
        ("reason", pa.string()),
        ("format", pa.string()),
        ("mode", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("peak", pa.float32()),
        ("white", pa.float32()),
        ("hidden", pa.bool_()),
        ("bytes_xxh3", pa.string()),
        ("pixels_xxh3", pa.string()),
        ("phash", pa.uint64()),
        ("thumbnail", pa.binary()),
    ]
)
"""kind and reason: why a picture was rejected, empty if it was not."""
LATER = {"white": 65535.0, "hidden": False}
"""Facts that audits before decoding version 3 did not store, with the values that those audits imply."""


@dataclass(frozen=True)
class Examined:
    """Facts of every picture, in the order of the sources.

    facts: FACTS_SCHEMA without thumbnails, a row each, including rejected pictures.
    thumbnails: uint8[n, THUMBNAIL_BYTES], on disk.
    """

    facts: pa.Table
    thumbnails: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Chunk:
    sources: Sequence[Source]
    data: Sequence[bytes] | None
    size: int


def examine_sources(
    listed: SourceList, options: DecodeOptions, pool: Pool, journal: Storage | None, progress: Progress
) -> Examined:
    """Decode every picture once and return the facts.

    Args:
        journal: Where finished chunks are kept until the dataset is published; None keeps none.
    """
    spool = _spool(len(listed.sources))
    place = {source.name: number for number, source in enumerate(listed.sources)}
    tables: list[pa.Table] = []
    order: list[int] = []
    for chunk, table in _examine_chunks(listed, options, pool, journal):
        rows = [place[source.name] for source in chunk.sources]
        for row, data in zip(rows, table["thumbnail"].to_pylist(), strict=True):
            if data:
                spool[row] = np.frombuffer(data, np.uint8)
        order += rows
        tables.append(table.drop_columns(["thumbnail"]))
        progress("audit", len(order), len(listed.sources), chunk.size)
    empty = FACTS_SCHEMA.remove(FACTS_SCHEMA.get_field_index("thumbnail")).empty_table()
    facts = pa.concat_tables([empty, *tables]).take(pa.array(np.argsort(order)))
    return Examined(facts, spool)


def _examine_chunks(
    listed: SourceList, options: DecodeOptions, pool: Pool, journal: Storage | None
) -> Iterator[tuple[_Chunk, pa.Table]]:
    known = journal.sizes() if journal else {}
    waiting: list[tuple[_Chunk, str]] = []

    def todo() -> Iterator[_Chunk | bytes]:
        for sources, data in load_chunks(listed.store, listed.sources, CHUNK):
            chunk = _Chunk(sources, data, sum(source.size for source in sources))
            name = f"{JOURNAL}{_identify(sources, options)}.parquet"
            waiting.append((chunk, name))
            yield journal.read(name) if journal and name in known else chunk

    for table, encoded in pool.run(partial(_examine_or_read, listed.store, options), todo()):
        chunk, name = waiting.pop(0)
        if journal and encoded:
            journal.write(name, encoded)
        yield chunk, table


def _identify(sources: Sequence[Source], options: DecodeOptions) -> str:
    digest = xxhash.xxh3_128(f"{VERSION} {DECODING} {options.model_dump_json()}".encode())
    for source in sources:
        digest.update(repr((source.name, source.size, source.stamp, source.offset)).encode())
    return digest.hexdigest()


def _examine_or_read(store: Store, options: DecodeOptions, task: _Chunk | bytes) -> tuple[pa.Table, bytes]:
    """Return the facts of a chunk, and the Parquet bytes for the journal, empty if there is nothing to store.

    A chunk from the journal arrives as Parquet bytes.
    """
    if isinstance(task, bytes):
        return pq.read_table(pa.BufferReader(task)), b""
    rows, lasting = [], True
    for number, source in enumerate(task.sources):
        try:
            data = task.data[number] if task.data else store.read(source)
        except OSError as err:  # not stored: the cause may be repaired without changing the file's size and time
            found: Facts | Rejected = Rejected("unreadable", f"the file cannot be read ({err.strerror or err})")
            lasting = False
        else:
            found = examine(data, options)
        rows.append(_row(source, found))
    table = pa.Table.from_pylist(rows, FACTS_SCHEMA)
    return table, encode_table(table) if lasting else b""


def _row(source: Source, found: Facts | Rejected) -> dict[str, object]:
    row: dict[str, object] = {"source": source.name, "kind": "", "reason": "", "thumbnail": b""}
    fields = found.__slots__
    return row | {name: getattr(found, name) for name in fields}


def spool_thumbnails(parts: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Return uint8[n, THUMBNAIL_BYTES], on disk: all parts, concatenated."""
    spool = _spool(sum(len(part) for part in parts))
    begin = 0
    for part in parts:
        spool[begin : begin + len(part)] = part
        begin += len(part)
    return spool


def _spool(count: int) -> npt.NDArray[np.uint8]:
    """Return zeros on disk: a kilobyte per picture is too much memory for millions of pictures."""
    if count == 0:
        return np.empty((0, THUMBNAIL_BYTES), np.uint8)
    size = count * THUMBNAIL_BYTES
    with (
        naming_disk(Path(tempfile.gettempdir(), "thumbnails"), format_size(size), MOVE_TEMPORARIES),
        tempfile.TemporaryFile(prefix="shardline-thumbnails-") as file,
    ):
        # Allocated in full: writing to a mapped page for which the disk has no room would kill the process by a signal.
        os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, np.uint8, "r+", shape=(count, THUMBNAIL_BYTES))
