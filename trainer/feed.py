"""Batches out of a split: threads read, decode and transform ahead of the step that needs them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shards.dataset import Split
from shards.errors import DecodeError, ShardError
from shards.plan import Refs
from shards.read import Sample, SampleReader

BATCHES_AHEAD = 3

Transform = Callable[[Sample], Tensor]
Loaded = tuple[Sample, Tensor]


@dataclass(frozen=True)
class Batch:
    """The part of a global batch that one rank computes; it may be empty.

    images: uint8[n, C, S, S]; labels: int64[n]; weights: float32[n]; ids: int64[n] sample ids.
    """

    images: Tensor
    labels: Tensor
    weights: Tensor
    ids: npt.NDArray[np.int64]
    sources: list[str]

    def __len__(self) -> int:
        return len(self.ids)


class Feed:
    """Reads one split with `workers` threads; the batches do not depend on their number.

    Args:
        split: What to read.
        shape: (C, S, S), for batches that are empty.
        workers: Threads.
    """

    def __init__(self, split: Split, shape: tuple[int, int, int], workers: int) -> None:
        self._reader = SampleReader(split)
        self._shape = shape
        # One torch thread each: the pool is the parallelism, and teams inside teams starve the model.
        self._pool = ThreadPoolExecutor(workers, "feed", initializer=torch.set_num_threads, initargs=(1,))

    def iterate(self, batches: Iterable[Refs], transform: Transform) -> Iterator[Batch]:
        """Yield one batch for each of `batches`, in order, reading three ahead; `transform` runs in the threads.

        Raises:
            ShardError: A sample that cannot be read or decoded; named by shard and key, never replaced.
        """
        ahead: deque[list[Future[Loaded]]] = deque()
        try:
            for refs in batches:
                places = zip(refs.shards.tolist(), refs.rows.tolist(), strict=True)
                ahead.append([self._pool.submit(self._load, shard, row, transform) for shard, row in places])
                if len(ahead) > BATCHES_AHEAD:
                    yield self._collate(ahead.popleft())
            while ahead:
                yield self._collate(ahead.popleft())
        finally:
            for future in (future for futures in ahead for future in futures):
                future.cancel()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._reader.close()

    def _load(self, shard: int, row: int, transform: Transform) -> Loaded:
        sample = self._reader.read_one(shard, row)
        try:
            return sample, transform(sample)
        except DecodeError as err:
            raise ShardError(f"{sample.where}: {err}. Restore the shard from a backup or pack again") from err

    def _collate(self, futures: list[Future[Loaded]]) -> Batch:
        loaded = [future.result() for future in futures]
        samples = [sample for sample, _ in loaded]
        images = (
            torch.stack([image for _, image in loaded]) if loaded else torch.empty((0, *self._shape), dtype=torch.uint8)
        )
        return Batch(
            images,
            torch.tensor([sample.label for sample in samples], dtype=torch.int64),
            torch.tensor([sample.weight for sample in samples], dtype=torch.float32),
            np.array([sample.sample_id for sample in samples], dtype=np.int64),
            [sample.source for sample in samples],
        )
