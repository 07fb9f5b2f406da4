"""Is a dataset still what was packed?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shards.dataset import Dataset, open_dataset
from shards.decode import DecodeOptions, inspect
from shards.errors import ShardError, UsageError
from shards.fingerprint import fingerprint_bytes, fingerprint_file
from shards.read import SampleReader
from shards.remote.cache import Wanted
from shards.remote.download import fetch
from shards.remote.readable import Readable
from shards.storage import FolderStorage, open_readable


@dataclass(frozen=True)
class Verified:
    """What was looked at and found as it was packed."""

    shards: int
    pictures: int


def verify_dataset(location: str | Path, *, sample: int | None = None, seed: int = 0) -> Verified:
    """Hash every shard and index again, and decode pictures: all of them, or `sample` drawn at random by `seed`.

    Raises:
        UsageError: A sample of less than one picture.
        ShardError: A shard, index or picture that is not what was packed.
    """
    if sample is not None and sample < 1:
        raise UsageError(f"--sample is at least 1 picture, got {sample}")
    dataset = open_dataset(location)
    storage = open_readable(dataset.location)
    wanted = _draw(dataset, sample, seed)
    shards = pictures = 0
    for name in dataset.manifest.splits:
        split = dataset.split(name)
        with SampleReader(split) as reader:
            for shard, row in enumerate(split.table.to_pylist()):
                _verify_file(storage, split.wanted_shard(shard), dataset.cache.deadline_s)
                _verify_file(storage, split.wanted_index(shard), dataset.cache.deadline_s)
                rows = wanted[(wanted >= row["first_id"]) & (wanted < row["first_id"] + row["count"])] - row["first_id"]
                _verify_pictures(reader, shard, rows, dataset.manifest.packing.decode)
                shards, pictures = shards + 1, pictures + len(rows)
    return Verified(shards, pictures)


def _draw(dataset: Dataset, sample: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Return the ids of the samples to decode."""
    total = sum(split.samples for split in dataset.manifest.splits.values())
    if sample is None or sample >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, sample, replace=False))


def _verify_pictures(reader: SampleReader, shard: int, rows: npt.NDArray[np.int64], options: DecodeOptions) -> None:
    for row in rows.tolist():
        sample = reader.read_one(shard, row)
        try:
            found = inspect(sample.data, options).pixels_xxh3
        except ShardError as err:
            raise ShardError(f"{sample.where}: {err}") from err
        if sample.audited and found != sample.pixels_xxh3:
            raise ShardError(f"{sample.where}: the pixels differ from those that were packed")


def _verify_file(storage: Readable, wanted: Wanted, deadline_s: float) -> None:
    where = f"{storage}/{wanted.name}"
    try:
        if isinstance(storage, FolderStorage):
            found = fingerprint_file(storage.root / wanted.name)
        else:
            found = fingerprint_bytes(fetch(storage, wanted.name, deadline_s=deadline_s))
        size = storage.size(wanted.name)
    except FileNotFoundError as err:
        raise ShardError(f"{where} is missing; restore it from a backup or pack again") from err
    if found != wanted.sha256:
        raise ShardError(
            f"{where}: sha256 differs from the shard table ({size:,} bytes); "
            "the file changed after packing. Pack again, or restore it from a backup"
        )
