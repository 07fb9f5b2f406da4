"""The ledger: which rank saw which sample at which step, and a hash of the pixels it saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from torch import Tensor

from shards.files.atomic import write_atomically
from shards.files.disk import naming_disk
from shards.files.temporary import name_temporary
from trainer.feed.feed import Batch
from trainer.record.store.run_store import RunStore

SCHEMA = pa.schema(
    [
        ("epoch", pa.int32()),
        ("step", pa.int64()),
        ("rank", pa.int32()),
        ("sample_id", pa.int64()),
        ("pixels_xxh3", pa.uint64()),
        ("redone", pa.bool_()),
    ]
)

LEDGER = "ledger"
"""Subfolder of the run folder for the rows."""
POSITION = "position"
"""File with the furthest position ever reached, in samples seen; it may be ahead of the last snapshot."""


class Ledger:
    """Rows of one rank, written with each snapshot, so that the rows on disk match the weights on disk.

    Files are `rank-RRRR-FROM-TO.parquet`, where FROM and TO are positions in samples seen. With a run store, each file
    is uploaded before the snapshot.
    """

    def __init__(self, folder: Path, rank: int, start: int, done_before: int, store: RunStore | None = None) -> None:
        self._folder = folder
        self._rank = rank
        self._start = start
        self._done_before = done_before
        self._tables: list[pa.Table] = []
        self._store = store
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, batch: Batch, epoch: int, step: int, position: int) -> None:
        """Record a step's slice; it counts as redone if `position` (samples seen before it) was passed before."""
        count = len(batch)
        columns = [
            np.full(count, epoch, np.int32),
            np.full(count, step, np.int64),
            np.full(count, self._rank, np.int32),
            batch.ids,
            np.array([_hash_image(image) for image, _ in zip(batch.images[:count], batch.ids, strict=True)], np.uint64),
            np.full(count, position < self._done_before, np.bool_),
        ]
        self._tables.append(pa.Table.from_arrays([pa.array(column) for column in columns], schema=SCHEMA))
        if self._rank == 0 and position >= self._done_before:
            self._write_position(position + 1)

    def flush(self, position: int) -> None:
        """Write the rows recorded up to `position`."""
        if position > self._start and self._tables:
            name = f"rank-{self._rank:04d}-{self._start:015d}-{position:015d}.parquet"
            with write_atomically(self._folder / name) as file:
                pq.write_table(pa.concat_tables(self._tables), file)
            if self._store:
                self._store.upload(self._folder / name, f"{self._folder.name}/{name}")
        self._start, self._tables = position, []

    def _write_position(self, position: int) -> None:
        # Not fsynced, unlike our other files: it is written each step and must survive a kill, not a power failure.
        path = self._folder / POSITION
        temporary = name_temporary(path)
        with naming_disk(path):
            try:
                temporary.write_text(str(position))
                temporary.replace(path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise


def _hash_image(image: Tensor) -> int:
    return xxhash.xxh3_64_intdigest(image.numpy().tobytes())


def read_position(folder: Path) -> int:
    """Return the furthest position that steps have reached, 0 if there were none."""
    path = folder / POSITION
    return int(path.read_text()) if path.is_file() else 0


def drop_after(folder: Path, position: int) -> None:
    """Remove the files of steps after `position`, which a restart repeats."""
    for path in folder.glob("rank-*.parquet"):
        if int(path.stem.rsplit("-", 1)[1]) > position:
            path.unlink()


def read_ledger(folder: Path) -> pa.Table:
    """Return the rows of all ranks, ordered by step, rank and position in the slice."""
    tables = [pq.read_table(path) for path in sorted(folder.glob("rank-*.parquet"))]
    table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    order = np.lexsort((np.arange(len(table)), table["rank"].to_numpy(), table["step"].to_numpy()))
    return table.take(pa.array(order))
