"""Check that a dataset is still what was packed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL

from shards.cli.arguments import check_count
from shards.cli.sentences import count_things
from shards.dataset.affected import Suspects, count_suspects, describe_affected, find_suspects, is_indexed
from shards.dataset.dataset import Dataset, open_dataset
from shards.dataset.manifest import Manifest
from shards.dataset.read import SampleReader
from shards.errors import ShardError
from shards.files.fingerprint import fingerprint_bytes, fingerprint_file
from shards.pictures.decode import inspect
from shards.pictures.decoding import is_changed
from shards.storage.cache import Wanted
from shards.storage.download import fetch
from shards.storage.readable import Readable
from shards.storage.storage import FolderStorage, open_readable


@dataclass(frozen=True)
class Verified:
    """What was checked and found unchanged.

    notes: what else the user should know, for example that this program decodes some pictures differently.
    """

    shards: int
    pictures: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Aged:
    """A picture that a later version decodes differently. refusal: why it is refused; '' if it is not."""

    where: str
    refusal: str = ""


@dataclass
class _Seen:
    """What reading the pictures has shown.

    aged: pictures that decode differently. odd: names of all pictures whose bytes may decode differently; plain: the
    rest.
    """

    aged: list[_Aged] = field(default_factory=list)
    odd: set[str] = field(default_factory=set)
    plain: set[str] = field(default_factory=set)


def verify_dataset(location: str | Path, *, sample: int | None = None, seed: int = 0) -> Verified:
    """Hash every shard and index again, and decode pictures: all, or `sample` of them, drawn at random by `seed`.

    A picture that this program decodes differently than the one that packed it is not damaged: a note counts it.

    Raises:
        UsageError: A sample of less than one picture.
        ShardError: A shard, index or picture differs from what was packed.
    """
    check_count("--sample", sample, of="pictures")
    dataset = open_dataset(location)
    storage = open_readable(dataset.location)
    wanted = _draw(dataset, sample, seed)
    shards = pictures = 0
    seen = _Seen()
    for name in dataset.manifest.splits:
        split = dataset.split(name)
        with SampleReader(split) as reader:
            for shard, row in enumerate(split.table.to_pylist()):
                _verify_file(storage, split.wanted_shard(shard), dataset.cache.deadline_s)
                _verify_file(storage, split.wanted_index(shard), dataset.cache.deadline_s)
                rows = wanted[(wanted >= row["first_id"]) & (wanted < row["first_id"] + row["count"])] - row["first_id"]
                _verify_pictures(reader, shard, rows, dataset.manifest, seen)
                shards, pictures = shards + 1, pictures + len(rows)
    return Verified(shards, pictures, _describe_age(dataset, seen))


def _describe_age(dataset: Dataset, seen: _Seen) -> tuple[str, ...]:
    found, aged = find_suspects(dataset), seen.aged
    if is_indexed(dataset):  # an indexed dataset's shards contain the files' own bytes
        found = Suspects(found.likely - seen.plain | seen.odd, found.uncertain - seen.plain - seen.odd)
    notes = [describe_affected(dataset, count_suspects(dataset, found))]
    if aged:
        are = count_things(len(aged), "picture of the shards decodes", "pictures of the shards decode")
        notes.append(f"{are} differently now, although the bytes are intact (the first is {aged[0].where})")
    refused = [each for each in aged if each.refusal]
    if refused:
        stops = count_things(len(refused), "of them is", "of them are")
        notes.append(f"{stops} refused, and training stops there: {refused[0].where}: {refused[0].refusal}")
    return tuple(filter(None, notes))


def _draw(dataset: Dataset, sample: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Return the ids of the samples to decode."""
    total = sum(split.samples for split in dataset.manifest.splits.values())
    if sample is None or sample >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, sample, replace=False))


def _verify_pictures(
    reader: SampleReader, shard: int, rows: npt.NDArray[np.int64], manifest: Manifest, seen: _Seen
) -> None:
    """Decode pictures and record in `seen` what they show."""
    for row in rows.tolist():
        sample = reader.read_one(shard, row)
        expected = is_changed(sample.data, manifest.decoding)
        (seen.odd if expected else seen.plain).add(sample.source)
        try:
            found = inspect(sample.data, manifest.packing.decode).pixels_xxh3
        except ShardError as err:
            if not expected:
                raise ShardError(f"{sample.where}: {err}") from err
            seen.aged.append(_Aged(sample.where, str(err)))
            continue
        if sample.audited and found != sample.pixels_xxh3 and not expected:
            # The reader has compared the bytes, so the picture is intact.
            raise ShardError(
                f"{sample.where}: the pixels differ from those that were packed although the bytes are the same, so "
                f"another decoder was used (here Pillow {PIL.__version__}); install the one that packed it, or pack "
                "again"
            )
        if expected and found != sample.pixels_xxh3:
            seen.aged.append(_Aged(sample.where))


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
