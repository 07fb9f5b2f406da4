"""One split of an opened dataset: its shards as arrays, and its samples for Python."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.dataset.index import INDEX_COLUMN
from shards.dataset.manifest import Task
from shards.pictures.decode import DecodeOptions, decode
from shards.storage.access import CacheOptions
from shards.storage.cache import Wanted
from shards.storage.shown import show_location

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
        """Return the shard of the sample that has this number in stored order, and the sample's row in that shard."""
        shard = int(np.searchsorted(self._ends, number, side="right"))
        return shard, number - int(self._ends[shard] - self.counts[shard])

    @cached_property
    def _ends(self) -> npt.NDArray[np.int64]:
        """int64[num_shards]: samples up to each shard's end."""
        return np.cumsum(self.counts)

    def decode_picture(self, data: bytes) -> npt.NDArray[np.uint8]:
        """Return an encoded picture as uint8[H, W, 3], RGB, as it is before resizing and cropping.

        Raises:
            DecodeError: Not one complete picture.
        """
        pixels = decode(data, self.decode)
        if self.max_side is None:
            return pixels
        from shards.pictures.shrink import shrink_pixels  # late import: most datasets keep the size of their pictures

        return shrink_pixels(pixels, self.max_side)

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
        `label`, for `.to_tuple("image", "label")`. Nodes and workers share the tars without loss or repetition.
        webdataset's own limits apply: whole tars are dealt out, so ranks may get different numbers of samples, and an
        epoch cannot be resumed in the middle; `batches` has neither limit.

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
        return show_location(self.location)

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
        rows = len(self.table)
        counts = self.table["class_counts"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return counts.reshape(rows, -1) if rows else np.zeros((0, 0), dtype=np.int64)

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
        return Wanted(self.name_shard(shard), self._look_up("sha256", shard), int(self.shard_bytes[shard]))

    def wanted_index(self, shard: int) -> Wanted:
        """Return a shard's index: name and sha256 by the shard table."""
        return Wanted(self._look_up(INDEX_COLUMN, shard), self._look_up("index_sha256", shard), None)

    def name_shard(self, shard: int) -> str:
        """Return the path of a shard's tar in the dataset."""
        return self._look_up("name", shard)

    def _look_up(self, column: str, shard: int) -> str:
        # One at a time: as lists of Python these columns take 400 MB in each process for 1e6 shards.
        value: str = self.table[column][shard].as_py()
        return value
