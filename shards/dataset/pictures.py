"""Pictures and labels of a split for any training loop: in the exact order of an epoch, or by index."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.dataset.ahead import look_ahead
from shards.dataset.read import Sample, SampleReader, name_broken
from shards.dataset.split import Split
from shards.errors import DecodeError, UsageError
from shards.order.plan import EpochPlan, OrderOptions, Refs, ShardSizes, sequential_refs, slice_rank
from shards.workers.openmp import count_cpus

Pixels = npt.NDArray[np.uint8]
Transform = Callable[[Pixels], Any]
"""uint8[H, W, 3], RGB -> an item of a batch."""
Picture = tuple[Any, Any]

_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class EpochOptions:
    """The batches of one epoch and one rank.

    batch_size: samples of a step over all ranks. first_step: steps to skip, to resume an epoch.
    shuffle: False gives stored order, as for evaluation.
    """

    batch_size: int
    epoch: int = 0
    seed: int = 0
    rank: int = 0
    num_ranks: int = 1
    first_step: int = 0
    shuffle: bool = True

    def __post_init__(self) -> None:
        least = {"batch_size": 1, "epoch": 0, "num_ranks": 1, "first_step": 0}
        for name, number in least.items():
            if getattr(self, name) < number:
                raise UsageError(f"{name} must be at least {number}, got {getattr(self, name)}")
        if not 0 <= self.rank < self.num_ranks:
            raise UsageError(f"rank {self.rank} is not one of the {self.num_ranks} ranks, which count from 0")


def iterate_batches(
    split: Split, options: EpochOptions, transform: Transform | None, workers: int | None
) -> Iterator[tuple[Any, npt.NDArray[Any]]]:
    """Yield images and labels; see `Split.batches`."""
    threads = count_cpus() if workers is None else max(1, workers)
    load = _Load(split, transform)
    with SampleReader(split) as reader, ThreadPoolExecutor(threads, "shardline-batches") as pool:
        waiting: deque[list[Future[Picture]]] = deque()
        try:
            for refs in look_ahead(_list_steps(split, options), reader, kept=_BATCHES_AHEAD + 1):
                places = zip(refs.shards.tolist(), refs.rows.tolist(), strict=True)
                waiting.append([pool.submit(load, reader, shard, row) for shard, row in places])
                if len(waiting) > _BATCHES_AHEAD:
                    yield _gather(waiting.popleft(), load)
            while waiting:
                yield _gather(waiting.popleft(), load)
        finally:
            for batch in waiting:
                for future in batch:
                    future.cancel()


def _list_steps(split: Split, options: EpochOptions) -> Iterator[Refs]:
    if options.shuffle:
        order = OrderOptions(options.seed, options.batch_size)
        plan = EpochPlan(ShardSizes(split.counts, split.shard_bytes), order, options.epoch)
        yield from plan.slices(options.first_step, options.rank, options.num_ranks)
        return
    for start in range(options.first_step * options.batch_size, split.num_samples, options.batch_size):
        size = min(options.batch_size, split.num_samples - start)
        mine = slice_rank(size, options.rank, options.num_ranks)
        yield sequential_refs(split.counts, start + mine.start, start + mine.stop)


def _gather(futures: Sequence[Future[Picture]], load: _Load) -> tuple[Any, npt.NDArray[Any]]:
    pictures = [future.result() for future in futures]
    labels = load.stack_labels([label for _, label in pictures])
    images = [image for image, _ in pictures]
    return (images if load.transform is None else stack(images)), labels


def stack(items: list[Any]) -> Any:
    """Stack tensors or arrays of one shape along a new first dimension; return other items as a list.

    Raises:
        UsageError: The shapes differ.
    """
    if not items or not hasattr(items[0], "shape"):
        return items
    shapes = sorted({tuple(item.shape) for item in items})
    if len(shapes) > 1:
        raise UsageError(
            f"transform returns pictures of {len(shapes)} shapes, such as {shapes[0]} and {shapes[-1]}, which "
            "cannot be stacked into a batch; have it resize them to one shape, or return a list or a dictionary "
            "instead of an array"
        )
    if isinstance(items[0], np.ndarray):
        return np.stack(items)
    import torch

    return torch.stack(items)


@dataclass(frozen=True)
class _Load:
    """Reads a sample and returns its picture and label; picklable if the transform is."""

    split: Split
    transform: Transform | None

    def __call__(self, reader: SampleReader, shard: int, row: int) -> Picture:
        return self.open(reader.read_one(shard, row))

    def open(self, sample: Sample) -> Picture:
        """Return the transformed pixels and the label: a number, or float32[K] of 0 and 1 if there may be several.

        Raises:
            ShardError: The sample cannot be decoded; the message names it.
        """
        try:
            pixels = self.split.decode_picture(sample.data)
        except DecodeError as err:
            raise name_broken(sample, err) from err
        return (pixels if self.transform is None else self.transform(pixels)), self._label(sample)

    def _label(self, sample: Sample) -> Any:
        if self.split.task != "multi-label":
            return sample.label
        row = np.zeros(self.split.num_classes, np.float32)
        row[list(sample.labels)] = 1
        return row

    def stack_labels(self, labels: list[Any]) -> npt.NDArray[Any]:
        """Return int64[n], or float32[n, K], also for n = 0."""
        if self.split.task == "multi-label":
            return np.stack(labels) if labels else np.zeros((0, self.split.num_classes), np.float32)
        return np.array(labels, np.int64)


class PictureDataset:
    """A split as a map-style dataset, for `torch.utils.data.DataLoader` with any sampler.

    Item `i` is (picture, label) of the i-th sample in stored order. It is picklable for spawned workers, each of which
    opens the shards itself.
    """

    def __init__(self, split: Split, transform: Transform | None = None) -> None:
        self.split = split
        self._load = _Load(split, transform)
        self._reader = SampleReader(split)

    def __len__(self) -> int:
        return self.split.num_samples

    def __getitem__(self, number: int) -> Picture:
        """Return a picture and its label; raises ShardError if it cannot be read or decoded."""
        if not -len(self) <= number < len(self):
            raise IndexError(f"{self.split.where}:{self.split.name} has {len(self):,} samples, no sample {number}")
        shard, row = self.split.find_sample(number % len(self))
        return self._load(self._reader, shard, row)
