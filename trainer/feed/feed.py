"""Batches from a split: threads read, decode and transform ahead of the step that needs them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shards.dataset.ahead import look_ahead
from shards.dataset.read import Sample, SampleReader, name_broken
from shards.dataset.split import Split
from shards.errors import DecodeError
from shards.order.plan import Refs
from trainer.contract.task import make_task
from trainer.feed.augment.mix import Pairs
from trainer.feed.encoded import Encoded
from trainer.feed.meter import Meter, Readings

BATCHES_AHEAD = 3
_CHUNK = 4
"""Samples per thread task: fewer cost more overhead, more leave threads idle at the end of a batch."""

Shape = tuple[int, int, int]

Load = Callable[[Sample, int, Meter], Tensor | Encoded]
"""Sample, its copy in the epoch, and a meter -> uint8[C, S, S], or an `Encoded` to finish on the batch's device."""

Gather = Callable[[Sequence[tuple[int, ...]]], Tensor]
"""Class numbers of each sample -> labels as losses take them."""

_Filled = list[tuple[Sample, Encoded | None]]


@dataclass(frozen=True)
class Batch:
    """One rank's slice of a global batch; it may be empty.

    images: uint8[n + extras, C, S, S], the slice's own pictures, then mixing partners from other slices; labels:
    int64[n], or float32[n, K] of 0 and 1 with several labels; weights: float32[n]; ids: int64[n] sample ids; pairs: the
    mixing of the step, None without mixing; encoded: rows of images still to be decoded, see `feed_device`.
    """

    images: Tensor
    labels: Tensor
    weights: Tensor
    ids: npt.NDArray[np.int64]
    sources: list[str]
    pairs: Pairs | None = None
    known_weight: float | None = None
    """Cached total_weight: on a device the host would wait for it."""
    encoded: Mapping[int, Encoded] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def total_weight(self) -> float:
        """Sum of the weights of this rank's samples; with mixing, of the mixed weights."""
        if self.known_weight is not None:
            return self.known_weight
        if self.pairs is None:
            return float(self.weights.sum(dtype=torch.float64))
        lam = self.pairs.lam.double()
        return float((lam * self.weights + (1 - lam) * self.pairs.weights).sum())


def count_ahead(device: torch.device) -> int:
    """Return how many batches loader threads prepare during a step on a device: none on a CPU.

    On a CPU, torch's threads use all CPUs of the rank. Loader threads running at the same time would preempt them, and
    the other torch threads would wait at barriers. So loader threads make a batch between the steps, on all CPUs.
    """
    return 0 if device.type == "cpu" else BATCHES_AHEAD


class Feed:
    """Read one split with `workers` threads; batches do not depend on their number.

    Args:
        split: The split to read.
        workers: Number of threads; 0: batches are made in the calling thread when requested.
        held: Number of earlier batches whose memory stays valid: with 1, the pictures of a batch may be overwritten
            once the second batch after it has been requested.
        pinned: Use page-locked memory, from which CUDA copies during computation.
        ahead: Number of batches to prepare during steps; 0: each batch is made when requested, by all threads.
    """

    def __init__(
        self, split: Split, workers: int, *, held: int = 1, pinned: bool = False, ahead: int = BATCHES_AHEAD
    ) -> None:
        self._reader = SampleReader(split)
        task, num_classes = make_task(split.task), split.num_classes
        self._gather: Gather = lambda labels: task.gather(labels, num_classes)
        self.meter = Meter()
        self._ahead = ahead if workers else 0
        self._buffers = _Buffers(BATCHES_AHEAD + 1 + held, pinned)
        # One torch thread each: the pool is the parallelism; nested thread teams would starve the model.
        self._pool = (
            ThreadPoolExecutor(workers, "feed", initializer=torch.set_num_threads, initargs=(1,)) if workers else None
        )

    def iterate(self, batches: Iterable[Refs], load: Load, shape: Shape) -> Iterator[Batch]:
        """Yield one batch for each of `batches`, in order, preparing `ahead` of them in advance.

        Args:
            batches: The samples of each batch.
            load: Makes the picture of a sample; called in the threads.
            shape: (C, S, S) of a picture.

        Raises:
            ShardError: A sample cannot be read or decoded; the message has its shard and key. It is never replaced.
            OSError: A remote shard cannot be downloaded.
        """
        ahead: deque[_Filling] = deque()
        try:
            for refs in look_ahead(batches, self._reader, kept=BATCHES_AHEAD + 2):
                ahead.append(self._begin(refs, load, shape))
                if len(ahead) > self._ahead:
                    yield ahead.popleft().finish()
            while ahead:
                yield ahead.popleft().finish()
        finally:
            for filling in ahead:
                filling.cancel()

    def read_meter(self) -> Readings:
        """Return the counts so far, and the time of each stage."""
        readings, counts = self.meter.read(), self._reader.counts()
        readings.cache_hits, readings.cache_misses = counts.hits, counts.misses
        readings.bytes_downloaded = counts.bytes_downloaded
        readings.seconds["fetch"] = counts.wait_s
        readings.seconds["read"] = max(0.0, readings.seconds["read"] - counts.wait_s)
        return readings

    def close(self) -> None:
        """End the threads and cancel pending work."""
        self._reader.close()
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def _begin(self, refs: Refs, load: Load, shape: Shape) -> _Filling:
        images = self._buffers.take(len(refs), shape)
        places = list(zip(refs.shards.tolist(), refs.rows.tolist(), refs.copies.tolist(), strict=True))
        parts: list[Future[_Filled]] = []
        for first in range(0, len(places), _CHUNK):
            part = places[first : first + _CHUNK], images[first : first + _CHUNK]
            parts.append(self._pool.submit(self._fill, *part, load) if self._pool else _done(self._fill(*part, load)))
        return _Filling(images, parts, self._gather)

    def _fill(self, places: list[tuple[int, int, int]], images: Tensor, load: Load) -> _Filled:
        """Load samples into their positions in a batch; return them with the pictures still to decode."""
        filled: _Filled = []
        for (shard, row, copy), image in zip(places, images, strict=True):
            with self.meter.timing("read"):
                sample = self._reader.read_one(shard, row)
            try:
                made = load(sample, copy, self.meter)
            except DecodeError as err:
                raise name_broken(sample, err) from err
            if isinstance(made, Tensor):
                image.copy_(made)
            filled.append((sample, made if isinstance(made, Encoded) else None))
        self.meter.count(len(filled), sum(len(sample.data) for sample, _ in filled))
        return filled


@dataclass(frozen=True)
class _Filling:
    """A batch that threads are filling; gather: Makes the batch's labels from those of each sample."""

    images: Tensor
    parts: list[Future[_Filled]]
    gather: Gather

    def finish(self) -> Batch:
        filled = [pair for part in self.parts for pair in part.result()]
        samples = [sample for sample, _ in filled]
        return Batch(
            self.images,
            self.gather([sample.labels for sample in samples]),
            torch.tensor([sample.weight for sample in samples], dtype=torch.float32),
            np.array([sample.sample_id for sample in samples], dtype=np.int64),
            [sample.source for sample in samples],
            encoded={row: encoded for row, (_, encoded) in enumerate(filled) if encoded},
        )

    def cancel(self) -> None:
        for part in self.parts:
            part.cancel()


class _Buffers:
    """Memory for batches, reused in turn: new memory would cost a page fault per 4 KiB of every batch."""

    def __init__(self, number: int, pinned: bool) -> None:
        self._pinned = pinned
        self._free = deque(torch.empty(0, dtype=torch.uint8) for _ in range(number))

    def take(self, size: int, shape: Shape) -> Tensor:
        """Return uint8[size, C, S, S]; its memory is reused `number` calls later."""
        channels, height, width = shape
        wanted = size * channels * height * width
        buffer = self._free.popleft()
        if len(buffer) < wanted:
            buffer = torch.empty(wanted, dtype=torch.uint8, pin_memory=self._pinned)
        self._free.append(buffer)
        # Channels last, like the output of decoders and the input of the model, so that copies are contiguous.
        return buffer[:wanted].view(size, height, width, channels).permute(0, 3, 1, 2)


def _done(filled: _Filled) -> Future[_Filled]:
    future: Future[_Filled] = Future()
    future.set_result(filled)
    return future
