"""Samples out of tars by byte offset: no unpacking, no sequential pass."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.dataset import Split
from shards.errors import ShardError
from shards.index import INDEX_SCHEMA, read_table

_SHARDS_KEPT = 256


@dataclass(frozen=True)
class Sample:
    """One encoded sample. `where` names shard and key for error messages; `source` is the file it came from.

    label: -1 where the sample has none or several.
    """

    sample_id: int
    label: int
    weight: float
    data: bytes
    where: str
    source: str


class SampleReader:
    """Reads samples of a split; safe to share between threads. Keeps at most 256 shards open."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._open.clear()

    def read(self, shard: int, rows: npt.NDArray[np.int64]) -> list[Sample]:
        """Return the samples at the given rows of one shard.

        Raises:
            ShardError: The shard or its index is missing, damaged or cut short.
        """
        return self._shard(shard).read(rows)

    def read_one(self, shard: int, row: int) -> Sample:
        """Return one sample; raises as `read`."""
        return self._shard(shard).read_row(row)

    def _shard(self, shard: int) -> _OpenShard:
        with self._lock:
            if shard not in self._open:
                self._open[shard] = _OpenShard(self._split, shard)
                if len(self._open) > _SHARDS_KEPT:
                    self._open.popitem(last=False)  # closed when the last thread that reads it lets go
            self._open.move_to_end(shard)
            return self._open[shard]


class _OpenShard:
    def __init__(self, split: Split, shard: int) -> None:
        self._path: Path = split.shard_path(shard)
        index: pa.Table = read_table(split.index_path(shard), INDEX_SCHEMA)
        if len(index) != split.counts[shard]:
            raise ShardError(
                f"{split.index_path(shard)} has {len(index):,} rows, the shard table says {split.counts[shard]:,}; "
                "restore it from a backup or pack again"
            )
        self._ids, self._offsets, self._lengths, self._labels, self._weights = (
            index[name].to_numpy() for name in ("sample_id", "offset", "length", "label", "weight")
        )
        self._keys, self._sources = index["key"], index["source"]
        try:
            self._file = open(self._path, "rb", buffering=0)  # noqa: SIM115, lives as long as this object
        except OSError as err:
            raise ShardError(
                f"{self._path} cannot be opened ({err.strerror}); restore it from a backup or pack again"
            ) from err

    def read(self, rows: npt.NDArray[np.int64]) -> list[Sample]:
        return [self.read_row(row) for row in rows.tolist()]

    def read_row(self, row: int) -> Sample:
        offset, length = int(self._offsets[row]), int(self._lengths[row])
        where = f"{self._path} key {self._keys[row].as_py()}"
        data = os.pread(self._file.fileno(), length, offset)
        if len(data) != length:
            raise ShardError(
                f"{where}: the shard ends early ({len(data):,} of {length:,} bytes at offset {offset:,}); "
                "restore it from a backup or pack again"
            )
        return Sample(
            int(self._ids[row]),
            int(self._labels[row]),
            float(self._weights[row]),
            data,
            where,
            self._sources[row].as_py(),
        )

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()
