"""The ledger: which rank saw which sample at which step, and a hash of the pixels it saw."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

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
_NAME: Final = re.compile(r"rank-\d+-(\d+)-(\d+)(?:-(\d+))?\.parquet")
POSITION = "position"
"""File with the furthest position ever reached, in samples seen; it may be ahead of the last snapshot."""


class Part(NamedTuple):
    """What the name of a ledger file says, `rank-RRRR-BEGIN-END-START.parquet`.

    begin, end: positions in samples seen. start: number of the start of the run that wrote it; 0 before there was one.

    >>> Part.parse("ledger/rank-0001-000000000000048-000000000000096-1796112000000.parquet")
    Part(begin=48, end=96, start=1796112000000)
    >>> Part.parse("rank-0001-000000000000048-000000000000096.parquet"), Part.parse("position")
    (Part(begin=48, end=96, start=0), None)
    """

    begin: int
    end: int
    start: int

    @classmethod
    def parse(cls, name: str) -> Part | None:
        """Return what a name says, None if it is not that of a ledger file."""
        found = _NAME.fullmatch(name.rpartition("/")[2])
        return cls(int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def choose_parts(names: Iterable[str]) -> list[str]:
    """Return the names of the files that belong to the newest start of a run, and to the earlier ones until it.

    A rank of an earlier start may go on unseen where its network is cut, and write its file after the next start has
    begun to repeat those steps.

    >>> first, late, again = "rank-0-0-48-1.parquet", "rank-1-48-96-1.parquet", "rank-0-48-96-2.parquet"
    >>> choose_parts([late, again, first])
    ['rank-0-0-48-1.parquet', 'rank-0-48-96-2.parquet']
    """
    parts = {name: part for name in names if (part := Part.parse(name))}
    chosen: list[str] = []
    until: float = float("inf")
    for start in sorted({part.start for part in parts.values()}, reverse=True):
        own = {name: part for name, part in parts.items() if part.start == start and part.end <= until}
        chosen += own
        until = min([until, *(part.begin for part in own.values())])
    return sorted(chosen)


def number_start(folder: Path) -> int:
    """Return a number for a start of a run that is above those of earlier ones: the time in milliseconds, or more."""
    earlier = [part.start for path in folder.glob("rank-*.parquet") if (part := Part.parse(path.name))]
    return max([int(time.time() * 1000), *(start + 1 for start in earlier)])


class Ledger:
    """Rows of one rank, written with each snapshot, so that the rows on disk match the weights on disk.

    Files are named as `Part` reads them. With a run store, each file is uploaded before the snapshot.

    Args:
        begin: Position in samples seen at which this start of the run begins.
        done_before: The furthest position that earlier starts have reached.
        start: The same number on all ranks, see `number_start`.
    """

    def __init__(
        self, folder: Path, rank: int, begin: int, done_before: int, start: int = 0, store: RunStore | None = None
    ) -> None:
        self._folder = folder
        self._rank = rank
        self._begin, self._start = begin, start
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
        if position > self._begin and self._tables:
            name = f"rank-{self._rank:04d}-{self._begin:015d}-{position:015d}-{self._start}.parquet"
            with write_atomically(self._folder / name) as file:
                pq.write_table(pa.concat_tables(self._tables), file)
            if self._store:
                self._store.upload(self._folder / name, f"{self._folder.name}/{name}")
        self._begin, self._tables = position, []

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
    for name in list_after((path.name for path in folder.glob("rank-*.parquet")), position):
        (folder / name).unlink()


def list_after(names: Iterable[str], position: int) -> list[str]:
    """Return the names of ledger files that have steps after a position."""
    return [name for name in names if (part := Part.parse(name)) and part.end > position]


def read_ledger(folder: Path) -> pa.Table:
    """Return the rows of all ranks, ordered by step, rank and position in the slice."""
    names = choose_parts(path.name for path in folder.glob("rank-*.parquet"))
    tables = [pq.read_table(folder / name) for name in names]
    table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    order = np.lexsort((np.arange(len(table)), table["rank"].to_numpy(), table["step"].to_numpy()))
    return table.take(pa.array(order))
