"""An open dataset: its classes and, for each split, the shard table as arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shards.dataset.index import INDEX_COLUMN, parse_shards
from shards.dataset.manifest import Manifest, Task, find_manifest
from shards.errors import ShardError, UsageError
from shards.files.fingerprint import fingerprint_bytes
from shards.pictures.decode import DecodeOptions, decode
from shards.pictures.shrink import shrink_pixels
from shards.storage.access import CacheOptions
from shards.storage.cache import Wanted
from shards.storage.download import fetch
from shards.storage.readable import Readable
from shards.storage.storage import FolderStorage, open_readable

if TYPE_CHECKING:
    from webdataset import WebDataset

    from shards.dataset.pictures import PictureDataset, Transform


@dataclass(frozen=True)
class Split:
    """One split: its shards in order; arrays have one entry per shard."""

    location: str
    name: str
    table: pa.Table
    cache: CacheOptions = field(default_factory=CacheOptions)
    task: Task = "single-label"
    decode: DecodeOptions = field(default_factory=DecodeOptions)
    max_side: int | None = None
    """Longer side in pixels to which larger pictures are shrunk."""

    classes: tuple[str, ...] = ()
    """Names of the classes, as people see them."""

    def __len__(self) -> int:
        return self.num_samples

    def _repr_html_(self) -> str:
        from shards.dataset.display import draw_split  # late: notebooks alone

        return draw_split(self)

    def find_sample(self, number: int) -> tuple[int, int]:
        """Return the shard of a sample, and its row there, by its number in stored order."""
        ends = np.cumsum(self.counts)
        shard = int(np.searchsorted(ends, number, side="right"))
        return shard, number - int(ends[shard] - self.counts[shard])

    def decode_picture(self, data: bytes) -> npt.NDArray[np.uint8]:
        """Return an encoded picture as uint8[H, W, 3], RGB, as training and evaluation see it before resizing and
        cropping.

        Raises:
            DecodeError: Not one complete picture.
        """
        return shrink_pixels(decode(data, self.decode), self.max_side)

    def batches(
        self,
        batch_size: int,
        *,
        epoch: int = 0,
        seed: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
        first_step: int = 0,
        shuffle: bool = True,
        transform: Transform | None = None,
        workers: int | None = None,
    ) -> Iterator[tuple[Any, npt.NDArray[Any]]]:
        """Yield (images, labels) for each step of an epoch, in the order in which a run with this seed sees them.

        Every sample comes exactly once an epoch, on any number of ranks: rank r of R gets its slice of the same global
        batches, and `first_step` resumes an epoch in the middle. Pass the number of each epoch as `epoch`.

        Args:
            batch_size: Samples of a step over all ranks; the last step of an epoch has the remainder.
            epoch: Counts from 0.
            seed: Seed of the order.
            rank: This process's rank, from 0.
            num_ranks: Processes that share each step.
            first_step: Steps of the epoch to skip.
            shuffle: False gives the stored order.
            transform: Turns uint8[H, W, 3], RGB, into an item of a batch, in threads; arrays or tensors of one shape
                are stacked. Without one, images are a list of uint8[H, W, 3].
            workers: Threads that read and decode; None means one for each CPU.

        Yields:
            images, and labels int64[n], or float32[n, K] of 0 and 1 if pictures may have several labels.

        Raises:
            UsageError: An argument out of range, or transformed pictures of different shapes.
            ShardError: A sample that cannot be read or decoded; none is skipped or replaced.
        """
        from shards.dataset.pictures import EpochOptions, iterate_batches  # late import: training has a feed of its own

        options = EpochOptions(batch_size, epoch, seed, rank, num_ranks, first_step, shuffle)
        return iterate_batches(self, options, transform, workers)

    def torch_dataset(self, transform: Transform | None = None) -> PictureDataset:
        """Return the split as a map-style dataset, for `torch.utils.data.DataLoader` and libraries built on it.

        transform: As in `batches`; DataLoader's own collation makes the batches.
        """
        from shards.dataset.pictures import PictureDataset

        return PictureDataset(self, transform)

    def webdataset(self, shuffle: int = 0, seed: int = 0) -> WebDataset:
        """Return a `webdataset.WebDataset` of the split's tars; remote tars are first fetched into the cache.

        Besides what the tar contains, samples have `image` (uint8[H, W, 3], decoded as everywhere in Shardline) and
        `label`:
        `.to_tuple("image", "label")`. Nodes and workers share the tars without loss or repetition. webdataset's own
        limits apply: whole tars are dealt out, so ranks may get different numbers of samples, and an epoch cannot be
        resumed in the middle; `batches` has neither limit.

        Args:
            shuffle: Size of the shuffle buffer in samples; tars come in random order, a new one for each iteration
                (with a DataLoader's workers, only if persistent_workers=True). 0 gives the stored order.
            seed: Seed of the shuffle.

        Raises:
            ShardError: During iteration: a picture differs from the packed one, or cannot be decoded.
        """
        from shards.dataset.webdataset import open_webdataset  # late import: the library is rarely needed

        return open_webdataset(self, shuffle, seed)

    @property
    def where(self) -> str:
        """The dataset's location as in messages."""
        return shorten(self.location)

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """int64[num_shards]: samples of each shard."""
        return self.table["count"].to_numpy()

    @cached_property
    def first_ids(self) -> npt.NDArray[np.int64]:
        """int64[num_shards]: sample id of each shard's first sample; ids are consecutive within a shard."""
        return self.table["first_id"].to_numpy()

    @cached_property
    def class_counts(self) -> npt.NDArray[np.int64]:
        """int64[num_shards, num_classes]."""
        return np.array(self.table["class_counts"].to_pylist(), dtype=np.int64)

    @property
    def num_classes(self) -> int:
        return int(self.class_counts.shape[1])

    @cached_property
    def shard_names(self) -> list[str]:
        names: list[str] = self.table["name"].to_pylist()
        return names

    @property
    def num_samples(self) -> int:
        return int(self.counts.sum())

    @cached_property
    def shard_bytes(self) -> npt.NDArray[np.int64]:
        """int64[num_shards]: bytes of each tar."""
        return self.table["bytes"].to_numpy()

    def wanted_shard(self, shard: int) -> Wanted:
        """Return a shard's tar: name, sha256 and size by the shard table."""
        return Wanted(self.shard_names[shard], self._digests[0][shard], int(self.shard_bytes[shard]))

    def wanted_index(self, shard: int) -> Wanted:
        """Return a shard's index: name and sha256 by the shard table."""
        return Wanted(self._indexes[shard], self._digests[1][shard], None)

    @cached_property
    def _indexes(self) -> list[str]:
        names: list[str] = self.table[INDEX_COLUMN].to_pylist()
        return names

    @cached_property
    def _digests(self) -> tuple[list[str], list[str]]:
        return self.table["sha256"].to_pylist(), self.table["index_sha256"].to_pylist()


@dataclass(frozen=True)
class Dataset:
    """A dataset in a folder, an object store or on a web server, described by its `dataset.json`."""

    location: str
    """Absolute path or URI."""
    manifest: Manifest
    table: pa.Table
    cache: CacheOptions = field(default_factory=CacheOptions)

    @property
    def classes(self) -> list[str]:
        return self.manifest.classes

    @property
    def splits(self) -> list[str]:
        """Names of the splits."""
        return list(self.manifest.splits)

    def __getitem__(self, name: str) -> Split:
        """Return one split, like `split`."""
        return self.split(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.splits)

    def _repr_html_(self) -> str:
        from shards.dataset.display import draw_dataset

        return draw_dataset(self)

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {each.samples:,}" for name, each in self.manifest.splits.items())
        return f"{shorten(self.location)}: {len(self.classes)} classes, {sizes}"

    def fingerprint(self) -> str:
        return self.manifest.fingerprint()

    def require_labels(self) -> Dataset:
        """Return this dataset if it has labels.

        Raises:
            UsageError: It was packed without labels.
        """
        if self.manifest.task == "unlabelled":
            raise UsageError(
                f"{shorten(self.location)} is unlabelled; training and evaluation need labels: pack it with them, "
                "or use trainer.predict for its pictures"
            )
        return self

    def split(self, name: str) -> Split:
        """Return one split.

        Raises:
            UsageError: The dataset has no such split.
        """
        if name not in self.manifest.splits:
            raise UsageError(
                f"{shorten(self.location)} has no split '{name}'; it has {', '.join(self.manifest.splits)}. "
                f"{self._spell_remedy(name)}"
            )
        table, packing = self.table.filter(pc.field("split") == name), self.manifest.packing
        task, shown = self.manifest.task, tuple(self.manifest.display_names)
        return Split(self.location, name, table, self.cache, task, packing.decode, packing.max_side, shown)

    def _spell_remedy(self, name: str) -> str:
        if name not in ("train", "val", "test"):
            return f"Name one of those, for example {next(iter(self.manifest.splits))}"
        if self.manifest.task == "unlabelled":
            return "Pack the pictures with their labels, which splits are for"
        if "train" not in self.manifest.splits:
            return (
                "It holds only pictures to evaluate a model on; to train on them, pack them without --split test=1 "
                "as class folders outside split folders, or by a list without the column split"
            )
        return "Pack its pictures again into a new folder with --split val=0.1,test=0.1, which makes the missing ones"


def open_dataset(location: str | Path, cache: CacheOptions | None = None) -> Dataset:
    """Open a dataset; only `dataset.json` and the shard table are read.

    Args:
        location: A folder, s3://, gs://, http:// or https://.
        cache: Where and how shards of a remote dataset are cached on this machine; None means the user's cache folder.

    Raises:
        UsageError: There is no dataset at `location`.
        ShardError: Another version, or the table differs from the one in the manifest.
        OSError: The store cannot be reached.
    """
    cache = cache or CacheOptions()
    storage = open_readable(location if "://" in str(location) else Path(location).absolute())
    manifest = find_manifest(storage, cache.deadline_s)
    try:
        encoded = fetch(storage, manifest.table, deadline_s=cache.deadline_s)
    except FileNotFoundError:
        manifest = find_manifest(storage, cache.deadline_s)  # an update may just have published another table
        encoded = _read_again(storage, manifest.table, cache.deadline_s)
    where = f"{storage}/{manifest.table}"
    table = parse_shards(encoded, where)
    if fingerprint_bytes(encoded) != manifest.table_sha256:
        raise ShardError(f"{where}: sha256 differs from dataset.json; the table changed after packing. Pack again")
    # The full URI: its query, which messages omit, may hold the store's address.
    return Dataset(str(storage) if isinstance(storage, FolderStorage) else str(location), manifest, table, cache)


def _read_again(storage: Readable, name: str, deadline_s: float) -> bytes:
    try:
        return fetch(storage, name, deadline_s=deadline_s)
    except FileNotFoundError as err:
        raise ShardError(f"{storage}/{name} is missing; restore it from a backup or pack again") from err


def shorten(location: str) -> str:
    """Return a location for messages: without the query of a URI, which may contain keys."""
    return location.partition("?")[0].rstrip("/") if "://" in location else location
