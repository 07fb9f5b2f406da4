"""Is a dataset still what was packed?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL

from shards.dataset.affected import describe_affected, find_affected
from shards.dataset.dataset import Dataset, open_dataset
from shards.dataset.manifest import Manifest
from shards.dataset.read import SampleReader
from shards.errors import ShardError, UsageError
from shards.files.fingerprint import fingerprint_bytes, fingerprint_file
from shards.pictures.decode import inspect
from shards.pictures.decoding import is_changed
from shards.storage.cache import Wanted
from shards.storage.download import fetch
from shards.storage.readable import Readable
from shards.storage.storage import FolderStorage, open_readable


@dataclass(frozen=True)
class Verified:
    """What was looked at and found as it was packed.

    notes: what else its user should know, as that a later version of decoding reads some of its pictures otherwise.
    """

    shards: int
    pictures: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Aged:
    """A picture that comes out otherwise by a later version of decoding. refusal: why it is refused, if it is."""

    where: str
    refusal: str = ""


def verify_dataset(location: str | Path, *, sample: int | None = None, seed: int = 0) -> Verified:
    """Hash every shard and index again, and decode pictures: all of them, or `sample` drawn at random by `seed`.

    A picture that this program decodes otherwise than the one that packed it is no damage: it is counted in a note.

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
    aged: list[_Aged] = []
    for name in dataset.manifest.splits:
        split = dataset.split(name)
        with SampleReader(split) as reader:
            for shard, row in enumerate(split.table.to_pylist()):
                _verify_file(storage, split.wanted_shard(shard), dataset.cache.deadline_s)
                _verify_file(storage, split.wanted_index(shard), dataset.cache.deadline_s)
                rows = wanted[(wanted >= row["first_id"]) & (wanted < row["first_id"] + row["count"])] - row["first_id"]
                aged += _verify_pictures(reader, shard, rows, dataset.manifest)
                shards, pictures = shards + 1, pictures + len(rows)
    return Verified(shards, pictures, _describe_age(dataset, aged))


def _describe_age(dataset: Dataset, aged: list[_Aged]) -> tuple[str, ...]:
    notes = [describe_affected(dataset, find_affected(dataset))]
    if aged:
        are = f"{len(aged):,} pictures of the shards come" if len(aged) > 1 else "1 picture of the shards comes"
        notes.append(f"{are} out otherwise by now, unharmed as their bytes are (the first is {aged[0].where})")
    refused = [each for each in aged if each.refusal]
    if refused:
        stops = "1 of them is" if len(refused) == 1 else f"{len(refused):,} of them are"
        notes.append(f"{stops} refused, and training stops there: {refused[0].where}: {refused[0].refusal}")
    return tuple(filter(None, notes))


def _draw(dataset: Dataset, sample: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Return the ids of the samples to decode."""
    total = sum(split.samples for split in dataset.manifest.splits.values())
    if sample is None or sample >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, sample, replace=False))


def _verify_pictures(reader: SampleReader, shard: int, rows: npt.NDArray[np.int64], manifest: Manifest) -> list[_Aged]:
    """Decode pictures; return those that a later version of decoding reads otherwise."""
    aged: list[_Aged] = []
    for row in rows.tolist():
        sample = reader.read_one(shard, row)
        expected = is_changed(sample.data, manifest.decoding)
        try:
            found = inspect(sample.data, manifest.packing.decode).pixels_xxh3
        except ShardError as err:
            if not expected:
                raise ShardError(f"{sample.where}: {err}") from err
            aged.append(_Aged(sample.where, str(err)))
            continue
        if sample.audited and found != sample.pixels_xxh3 and not expected:
            # The reader has compared the bytes, so the picture is whole.
            raise ShardError(
                f"{sample.where}: the pixels differ from those that were packed, and the bytes do not, so another "
                f"decoder was at work (here Pillow {PIL.__version__}); install the one that packed it, or pack again"
            )
        if expected and found != sample.pixels_xxh3:
            aged.append(_Aged(sample.where))
    return aged


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
