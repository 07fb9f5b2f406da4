"""An opened dataset: its classes and, per split, the shard table as arrays."""

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
    """One split: shards in order; arrays have one entry per shard."""

    location: str
    name: str
    table: pa.Table
    cache: CacheOptions = field(default_factory=CacheOptions)
    task: Task = "single-label"
    decode: DecodeOptions = field(default_factory=DecodeOptions)
    max_side: int | None = None
    """Pixels of the longer side to which larger pictures are shrunk."""

    def __len__(self) -> int:
        return self.num_samples

    def decode_picture(self, data: bytes) -> npt.NDArray[np.uint8]:
        """Return uint8[H, W, 3], RGB, of an encoded picture, as training and evaluation see it before its geometry.

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
        """Yield (images, labels) of each step of one epoch, in the order in which a run with that seed sees them.

        Every sample comes exactly once an epoch, on any number of ranks: rank r of R gets its part of the same global
        batches, and `first_step` resumes an epoch in the middle. Give each epoch its number.

        Args:
            batch_size: Samples of a step over all ranks; the last step of an epoch has what is left.
            epoch: Counts from 0.
            seed: Of the order.
            rank: This process, from 0.
            num_ranks: Processes that share each step.
            first_step: Steps of the epoch that are left out.
            shuffle: False gives the stored order.
            transform: Makes uint8[H, W, 3], RGB, into an item of a batch, in threads; arrays or tensors of one shape
                are stacked. Without one, images are a list of uint8[H, W, 3].
            workers: Threads that read and decode; None means one for each CPU.

        Yields:
            images, and labels int64[n], or float32[n, K] of 0 and 1 where a picture may have several.

        Raises:
            UsageError: A number that makes no sense, or transformed pictures of several shapes.
            ShardError: A sample that cannot be read or decoded; none is left out or replaced.
        """
        from shards.dataset.pictures import EpochOptions, iterate_batches  # late: training has a feed of its own

        options = EpochOptions(batch_size, epoch, seed, rank, num_ranks, first_step, shuffle)
        return iterate_batches(self, options, transform, workers)

    def torch_dataset(self, transform: Transform | None = None) -> PictureDataset:
        """Return the split by number, map style, for `torch.utils.data.DataLoader` and what is built on it.

        transform: As in `batches`; DataLoader's own collation makes batches of what it gives.
        """
        from shards.dataset.pictures import PictureDataset

        return PictureDataset(self, transform)

    def webdataset(self, shuffle: int = 0, seed: int = 0) -> WebDataset:
        """Return a `webdataset.WebDataset` of the split's tars; remote ones are fetched into the cache first.

        Its samples have, beside what the tar holds, `image` (uint8[H, W, 3], decoded as everywhere in Shardline) and
        `label`: `.to_tuple("image", "label")`. Nodes and workers share the tars without loss or repetition. Its own
        limits hold: whole tars are dealt out, so ranks may get different numbers of samples, and an epoch cannot be
        resumed in the middle; `batches` has neither.

        Args:
            shuffle: Samples held to shuffle from, and tars in random order, another one each time it is iterated over
                (a DataLoader's workers count only with persistent_workers=True); 0: stored order.
            seed: Of the shuffle.

        Raises:
            ShardError: While it is read: a picture that is not the one that was packed, or cannot be decoded.
        """
        from shards.dataset.webdataset import open_webdataset  # late: few need the library

        return open_webdataset(self, shuffle, seed)

    @property
    def where(self) -> str:
        """The dataset's location as messages name it."""
        return shorten(self.location)

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """int64[num_shards]: samples of each shard."""
        return self.table["count"].to_numpy()

    @cached_property
    def first_ids(self) -> npt.NDArray[np.int64]:
        """int64[num_shards]: sample id of each shard's first sample; ids run on inside a shard."""
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
        """Return a shard's tar as the shard table vouches for it."""
        return Wanted(self.shard_names[shard], self._digests[0][shard], int(self.shard_bytes[shard]))

    def wanted_index(self, shard: int) -> Wanted:
        """Return a shard's index as the shard table vouches for it."""
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
    """Shards in a folder, an object store or on a web server that `dataset.json` vouches for."""

    location: str
    """Absolute path, or URI."""
    manifest: Manifest
    table: pa.Table
    cache: CacheOptions = field(default_factory=CacheOptions)

    @property
    def classes(self) -> list[str]:
        return self.manifest.classes

    @property
    def splits(self) -> list[str]:
        """Names of its splits."""
        return list(self.manifest.splits)

    def __getitem__(self, name: str) -> Split:
        """Return one split, as `split` does."""
        return self.split(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.splits)

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {each.samples:,}" for name, each in self.manifest.splits.items())
        return f"{shorten(self.location)}: {len(self.classes)} classes, {sizes}"

    def fingerprint(self) -> str:
        return self.manifest.fingerprint()

    def require_labels(self) -> Dataset:
        """Return this dataset when somebody said what its pictures show.

        Raises:
            UsageError: It was packed without labels.
        """
        if self.manifest.task == "unlabelled":
            raise UsageError(
                f"{shorten(self.location)} is unlabelled; training and evaluation need labels: pack it with them, or "
                "ask trainer.predict about its pictures"
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
        return Split(self.location, name, table, self.cache, self.manifest.task, packing.decode, packing.max_side)

    def _spell_remedy(self, name: str) -> str:
        if name not in ("train", "val", "test"):
            return f"Name one of those, such as {next(iter(self.manifest.splits))}"
        if self.manifest.task == "unlabelled":
            return "Pack the pictures with their labels, which a split is for"
        if "train" not in self.manifest.splits:
            return (
                "It holds pictures to evaluate a model on alone; to train on them, pack them without --split test=1 as "
                "class folders that lie in no folder of a split, or by a list without the column split"
            )
        return "Pack its pictures again into a new folder with --split val=0.1,test=0.1, which makes the missing ones"


def open_dataset(location: str | Path, cache: CacheOptions | None = None) -> Dataset:
    """Open a dataset by reading `dataset.json` and the shard table, nothing else.

    Args:
        location: A folder, s3://, gs://, http:// or https://.
        cache: Where and how the shards of a remote one are kept on this machine; None means the user's cache folder.

    Raises:
        UsageError: No dataset there.
        ShardError: Another version, or the table is not the one that the manifest names.
        OSError: The store cannot be reached.
    """
    cache = cache or CacheOptions()
    storage = open_readable(location if "://" in str(location) else Path(location).absolute())
    manifest = find_manifest(storage, cache.deadline_s)
    try:
        encoded = fetch(storage, manifest.table, deadline_s=cache.deadline_s)
    except FileNotFoundError:
        manifest = find_manifest(storage, cache.deadline_s)  # an update may have published another state a moment ago
        encoded = _read_again(storage, manifest.table, cache.deadline_s)
    where = f"{storage}/{manifest.table}"
    table = parse_shards(encoded, where)
    if fingerprint_bytes(encoded) != manifest.table_sha256:
        raise ShardError(f"{where}: sha256 differs from dataset.json; the table changed after packing. Pack again")
    # The whole URI: the address of the store may stand in its query, which messages leave out.
    return Dataset(str(storage) if isinstance(storage, FolderStorage) else str(location), manifest, table, cache)


def _read_again(storage: Readable, name: str, deadline_s: float) -> bytes:
    try:
        return fetch(storage, name, deadline_s=deadline_s)
    except FileNotFoundError as err:
        raise ShardError(f"{storage}/{name} is missing; restore it from a backup or pack again") from err


def shorten(location: str) -> str:
    """Return a location as messages name it: without the query of a URI, which may hold keys."""
    return location.partition("?")[0].rstrip("/") if "://" in location else location
