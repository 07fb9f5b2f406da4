"""Batches out of a split: threads read, decode and transform ahead of the step that needs them."""

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
from shards.dataset.dataset import Split
from shards.dataset.read import Sample, SampleReader
from shards.errors import DecodeError
from shards.order.plan import Refs
from trainer.contract.task import make_task
from trainer.feed.augment.mix import Pairs
from trainer.feed.encoded import Encoded, name_broken
from trainer.feed.meter import Meter, Readings

BATCHES_AHEAD = 3
_CHUNK = 4
"""Samples that a thread takes at a time: fewer cost more in handing over, more let threads idle at a batch's end."""

Shape = tuple[int, int, int]

Load = Callable[[Sample, int, Meter], Tensor | Encoded]
"""Sample, its copy in the epoch, and a meter -> uint8[C, S, S], or what becomes that on the batch's device."""

Gather = Callable[[Sequence[tuple[int, ...]]], Tensor]
"""Class numbers of each sample -> labels as losses take them."""

_Filled = list[tuple[Sample, Encoded | None]]


@dataclass(frozen=True)
class Batch:
    """The part of a global batch that one rank computes; it may be empty.

    images: uint8[n + extras, C, S, S], after the batch's own the partners that it lacks; labels: int64[n], or where
    samples have several float32[n, K] of 0 and 1; weights: float32[n]; ids: int64[n] sample ids; pairs: what the step
    mixes, None where it does not; encoded: rows of images that are still to be written, see `feed_device`.
    """

    images: Tensor
    labels: Tensor
    weights: Tensor
    ids: npt.NDArray[np.int64]
    sources: list[str]
    pairs: Pairs | None = None
    known_weight: float | None = None
    """total_weight, once it has been worked out: on a device the host would wait for it."""
    encoded: Mapping[int, Encoded] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def total_weight(self) -> float:
        """Sum of the weights of this rank's samples, or of what it mixes of them and their partners."""
        if self.known_weight is not None:
            return self.known_weight
        if self.pairs is None:
            return float(self.weights.sum(dtype=torch.float64))
        lam = self.pairs.lam.double()
        return float((lam * self.weights + (1 - lam) * self.pairs.weights).sum())


def count_ahead(device: torch.device) -> int:
    """Return how many batches loader threads make while others are computed on a device: none on a CPU.

    There torch's threads have all CPUs of the rank. Loader threads beside them would take turns with them, while the
    others wait at barriers for the one that does not run; they make a batch between the steps, on all CPUs.
    """
    return 0 if device.type == "cpu" else BATCHES_AHEAD


class Feed:
    """Reads one split with `workers` threads; the batches do not depend on their number.

    Args:
        split: What to read.
        workers: Threads; 0 works when a batch is asked for, in the thread that asks.
        held: Batches before the one asked for last whose memory stays theirs: with 1, the pictures of a batch are
            overwritten some time after the second one behind it was asked for.
        pinned: Page-locked memory, which CUDA copies from beside the computation.
        ahead: Batches that threads make while others are computed; 0 makes each when it is asked for, by all threads.
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
        # One torch thread each: the pool is the parallelism, and teams inside teams starve the model.
        self._pool = (
            ThreadPoolExecutor(workers, "feed", initializer=torch.set_num_threads, initargs=(1,)) if workers else None
        )

    def iterate(self, batches: Iterable[Refs], load: Load, shape: Shape) -> Iterator[Batch]:
        """Yield one batch for each of `batches`, in order, working `ahead` of them.

        Args:
            batches: Samples of each.
            load: Makes a picture of a sample; it runs in the threads.
            shape: (C, S, S) of a picture.

        Raises:
            ShardError: A sample that cannot be read or decoded; named by shard and key, never replaced.
            OSError: A remote shard that cannot be fetched.
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
        """Return what was read so far, and how long each stage took."""
        readings, counts = self.meter.read(), self._reader.counts()
        readings.cache_hits, readings.cache_misses = counts.hits, counts.misses
        readings.bytes_downloaded = counts.bytes_downloaded
        readings.seconds["fetch"] = counts.wait_s
        readings.seconds["read"] = max(0.0, readings.seconds["read"] - counts.wait_s)
        return readings

    def close(self) -> None:
        """End the threads; what they wait for is given up."""
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
        """Load samples into their places in a batch; return them with what is left to be done."""
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
    """A batch that threads are filling; gather: makes its labels of those of each sample."""

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
    """Memory for batches, used in turn: taken anew it would cost a page fault for each 4 KiB of every batch."""

    def __init__(self, number: int, pinned: bool) -> None:
        self._pinned = pinned
        self._free = deque(torch.empty(0, dtype=torch.uint8) for _ in range(number))

    def take(self, size: int, shape: Shape) -> Tensor:
        """Return uint8[size, C, S, S]; its memory is given out again `number` takes later."""
        channels, height, width = shape
        wanted = size * channels * height * width
        buffer = self._free.popleft()
        if len(buffer) < wanted:
            buffer = torch.empty(wanted, dtype=torch.uint8, pin_memory=self._pinned)
        self._free.append(buffer)
        # Channels last, as decoders give them and the model takes them: copies then go straight through memory.
        return buffer[:wanted].view(size, height, width, channels).permute(0, 3, 1, 2)


def _done(filled: _Filled) -> Future[_Filled]:
    future: Future[_Filled] = Future()
    future.set_result(filled)
    return future
