"""Samples read from tars by byte offset: no unpacking, no sequential pass."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.dataset.index import INDEX_SCHEMA, read_table
from shards.dataset.split import Split
from shards.errors import DecodeError, ShardError
from shards.files.fingerprint import hash_bytes
from shards.storage.access import FolderAccess, open_access
from shards.storage.cache import CacheCounts

_SHARDS_KEPT = 256


@dataclass(frozen=True, slots=True)
class Sample:
    """One encoded sample of a shard.

    label: -1 if the sample has none or several. pixels_xxh3: of the decoded picture, empty if it was not audited.
    source:
    the file it came from. offset: of the bytes in the tar. labels: all of them, as class numbers.
    """

    sample_id: int
    label: int
    weight: float
    data: bytes
    pixels_xxh3: str
    source: str
    shard: str
    key: str
    offset: int
    labels: tuple[int, ...] = ()

    @property
    def audited(self) -> bool:
        """Whether the bytes were decoded during packing, and so are one complete picture."""
        return bool(self.pixels_xxh3)

    @property
    def where(self) -> str:
        """Shard, key and place in the tar, for error messages."""
        return f"{self.shard} key {self.key} at offset {self.offset:,}"


def name_broken(sample: Sample, err: DecodeError) -> ShardError:
    """Return the error for a sample whose bytes are not one complete picture."""
    return ShardError(f"{sample.where}: {err}. Restore the shard from a backup or pack again")


class SampleReader(AbstractContextManager["SampleReader"]):
    """Reads samples of a split, byte for byte as they were packed; thread-safe.

    Keeps at most 256 shards open.
    """

    def __init__(self, split: Split) -> None:
        self._split = split
        self._access = open_access(split.location, split.cache)
        self._local = isinstance(self._access, FolderAccess)
        self._open: OrderedDict[int, Future[_OpenShard]] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[SampleReader], tuple[Split]]:
        """Pickle only the split: a spawned worker opens shards itself."""
        return SampleReader, (self._split,)

    @property
    def ahead_bytes(self) -> int:
        """Bytes of shards that may be fetched before they are needed; 0 for local shards, which are not fetched."""
        return 0 if self._local else self._split.cache.limit_bytes // (2 * self._split.cache.sharers)

    def shard_bytes(self, shard: int) -> int:
        """Return the size of a shard's tar in bytes."""
        return int(self._split.shard_bytes[shard])

    def announce(self, shards: Sequence[int]) -> None:
        """Fetch these shards ahead, in this order, and release all others."""
        with self._lock:
            for shard in [shard for shard in self._open if shard not in shards]:
                del self._open[shard]  # closed when the last thread has read from it
            missing = [shard for shard in shards if shard not in self._open]
        wanted = [(self._split.wanted_index(shard), self._split.wanted_shard(shard)) for shard in missing]
        self._access.prefetch([file for pair in wanted for file in pair])

    def read(self, shard: int, rows: npt.NDArray[np.int64]) -> list[Sample]:
        """Return the samples at the given rows of one shard.

        Raises:
            ShardError: The shard or its index is missing, damaged or cut short.
            OSError: It cannot be fetched.
        """
        return [self.read_one(shard, row) for row in rows.tolist()]

    def read_one(self, shard: int, row: int) -> Sample:
        """Return one sample; raises like `read`."""
        return self._shard(shard).read_row(row)

    def read_column(self, name: str) -> npt.NDArray[Any]:
        """Return one column of the index of all shards, in stored order; raises like `read`."""
        chunks = self.read_columns([name])[name].chunks
        return np.concatenate([chunk.to_numpy(zero_copy_only=False) for chunk in chunks])

    def read_columns(self, names: list[str], shards: Sequence[int] | None = None) -> pa.Table:
        """Return columns of the index of these shards, None for all, in stored order; raises like `read`."""
        chosen = range(len(self._split.counts)) if shards is None else shards
        wanted = [self._split.wanted_index(shard) for shard in chosen]
        tables = []
        for first in range(0, len(wanted), _SHARDS_KEPT):
            part = wanted[first : first + _SHARDS_KEPT]
            self._access.prefetch(part)
            for index in part:
                with self._access.lease(index) as lease:
                    tables.append(read_table(lease.path, INDEX_SCHEMA).select(names))
        return pa.concat_tables(tables)

    def counts(self) -> CacheCounts:
        """Return the cache's counts so far; zeros for local shards."""
        return self._access.counts()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._open.clear()
        self._access.close()

    def _shard(self, shard: int) -> _OpenShard:
        with self._lock:
            opening = self._open.get(shard)
            mine = opening is None
            if opening is None:
                opening = self._open[shard] = Future()
                if len(self._open) > _SHARDS_KEPT:
                    self._open.popitem(last=False)
            self._open.move_to_end(shard)
        if mine:  # outside the lock: a shard that must be fetched delays only its own readers
            try:
                opening.set_result(_OpenShard(self._split, shard, self))
            except BaseException as err:
                with self._lock:
                    self._open.pop(shard, None)
                opening.set_exception(err)
        return opening.result()


class _OpenShard:
    def __init__(self, split: Split, shard: int, reader: SampleReader) -> None:
        wanted = split.wanted_index(shard)
        self._name = f"{split.where}/{split.name_shard(shard)}"
        with reader._access.lease(wanted) as lease:
            index: pa.Table = read_table(lease.path, INDEX_SCHEMA)
        if len(index) != split.counts[shard]:
            raise ShardError(
                f"{split.where}/{wanted.name} has {len(index):,} rows, but the shard table has "
                f"{split.counts[shard]:,}; restore it from a backup or pack again"
            )
        self._ids, self._offsets, self._lengths, self._labels, self._weights = (
            index[name].to_numpy() for name in ("sample_id", "offset", "length", "label", "weight")
        )
        self._keys, self._sources = index["key"], index["source"]
        self._bytes_hashes, self._pixels_hashes = index["bytes_xxh3"], index["pixels_xxh3"]
        self._several = index["labels"]
        self._lease = reader._access.lease(split.wanted_shard(shard))
        try:
            self._file = open(self._lease.path, "rb", buffering=0)  # noqa: SIM115, lives as long as this object
        except OSError as err:
            raise ShardError(
                f"{self._name} cannot be opened ({err.strerror}); restore it from a backup or pack again"
            ) from err

    def read_row(self, row: int) -> Sample:
        offset, length, label = int(self._offsets[row]), int(self._lengths[row]), int(self._labels[row])
        key = self._keys[row].as_py()
        data = os.pread(self._file.fileno(), length, offset)
        if len(data) != length:
            raise ShardError(
                f"{self._name} key {key}: the shard ends early ({len(data):,} of {length:,} bytes at offset "
                f"{offset:,}); restore it from a backup or pack again"
            )
        if hash_bytes(data) != self._bytes_hashes[row].as_py():
            raise ShardError(
                f"{self._name} key {key} at offset {offset:,}: its {length:,} bytes are not those that were packed; "
                "restore the shard from a backup or pack again"
            )
        return Sample(
            sample_id=int(self._ids[row]),
            label=label,
            weight=float(self._weights[row]),
            data=data,
            pixels_xxh3=self._pixels_hashes[row].as_py(),
            source=self._sources[row].as_py(),
            shard=self._name,
            key=key,
            offset=offset,
            labels=(label,) if label >= 0 else tuple(self._several[row].as_py()),
        )

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()
        if hasattr(self, "_lease"):
            self._lease.close()
