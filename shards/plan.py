"""The order of an epoch: a pure function of (seed, epoch, shard sizes, lanes, window).

Shards are dealt into lanes; inside a lane, samples are shuffled within windows of shards; each global batch
takes from every lane in proportion to what the lane holds, and lays the takes side by side. Ranks and loader
workers are no arguments, so the order is the same for any number of them. Only the windows that a step
touches are ever held in memory.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

_DEAL, _WINDOW = 0, 1  # what a random stream is for: no two share (seed, epoch, purpose, ...)
_WINDOWS_KEPT = 2


@dataclass(frozen=True)
class Refs:
    """Samples by place: shards int64[n] and rows int64[n] (position inside the shard)."""

    shards: Ints
    rows: Ints

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, part: slice) -> Refs:
        return Refs(self.shards[part], self.rows[part])


def concat_refs(parts: list[Refs]) -> Refs:
    """Return the samples of all parts, in order."""
    empty = np.empty(0, dtype=np.int64)
    return Refs(
        np.concatenate([empty, *(part.shards for part in parts)]),
        np.concatenate([empty, *(part.rows for part in parts)]),
    )


class EpochPlan:
    """The global batches of one epoch; `step(s)` costs the same wherever s stands.

    Args:
        counts: int64[num_shards], samples of each shard.
        seed: Seed of the run.
        epoch: Whole passes so far.
        batch_size_global: Samples of a step over all ranks; the last step takes what is left.
        lanes: Independent sequences that each batch draws from.
        window_shards: Shards of one lane that are shuffled together.
    """

    def __init__(
        self, counts: Ints, *, seed: int, epoch: int, batch_size_global: int, lanes: int, window_shards: int
    ) -> None:
        self.num_samples = int(counts.sum())
        self.batch_size_global = batch_size_global
        dealt = deal_shards(counts, lanes, np.random.default_rng((seed, epoch, _DEAL)))
        self._lanes = [
            _Lane(counts, shards, (seed, epoch, _WINDOW, number), window_shards) for number, shards in enumerate(dealt)
        ]
        self._sizes = np.array([lane.num_samples for lane in self._lanes], dtype=np.int64)

    @property
    def num_steps(self) -> int:
        return -(-self.num_samples // self.batch_size_global)

    def step(self, step: int) -> Refs:
        """Return the global batch of one step, lanes side by side."""
        start = apportion(self._sizes, min(step * self.batch_size_global, self.num_samples))
        stop = apportion(self._sizes, min((step + 1) * self.batch_size_global, self.num_samples))
        takes = zip(self._lanes, start.tolist(), stop.tolist(), strict=True)
        return concat_refs([lane.take(first, last) for lane, first, last in takes])


def sequential_refs(counts: Ints, start: int, stop: int) -> Refs:
    """Return samples start..stop-1 in stored order, as evaluation reads them."""
    bounds = np.concatenate([[0], np.cumsum(counts)])
    positions = np.arange(start, stop, dtype=np.int64)
    shards = np.searchsorted(bounds, positions, side="right") - 1
    return Refs(shards, positions - bounds[shards])


def slice_rank(size: int, rank: int, num_ranks: int) -> slice:
    """Return the contiguous part of a global batch that belongs to a rank; sizes differ by at most one.

    >>> [slice_rank(5, rank, 3) for rank in range(3)]
    [slice(0, 1, None), slice(1, 3, None), slice(3, 5, None)]
    """
    return slice(size * rank // num_ranks, size * (rank + 1) // num_ranks)


def deal_shards(counts: Ints, lanes: int, rng: np.random.Generator) -> list[Ints]:
    """Return the shards of each lane: in random order, each to the lane that holds the fewest samples."""
    hands: list[list[int]] = [[] for _ in range(lanes)]
    held = np.zeros(lanes, dtype=np.int64)
    for shard in rng.permutation(len(counts)).tolist():
        lane = int(held.argmin())
        hands[lane].append(shard)
        held[lane] += counts[shard]
    return [np.array(hand, dtype=np.int64) for hand in hands]


def apportion(sizes: Ints, seats: int) -> Ints:
    """Return int64[lanes] summing to `seats`, proportional to `sizes`, at most `sizes`.

    The method is house monotone: one more seat never takes one away from a lane, so consecutive steps take
    every sample exactly once.

    Source: Webster / Sainte-Lague, the divisors 1, 3, 5, ...; the lower lane number wins a tie.

    >>> apportion(np.array([7, 3]), 5).tolist()
    [4, 1]
    """
    total = int(sizes.sum())
    if total == 0:
        return np.zeros_like(sizes)
    # Rounded quotas are Webster's for one divisor; what the rounding left over is settled a seat at a time.
    taken = np.minimum((2 * sizes * seats + total) // (2 * total), sizes)
    while (missing := seats - int(taken.sum())) != 0:
        lane = _next_lane(sizes, taken) if missing > 0 else _last_lane(sizes, taken)
        taken[lane] += 1 if missing > 0 else -1
    return taken


def _next_lane(sizes: Ints, taken: Ints) -> int:
    """Return the lane with the smallest (2 taken + 1) / size, compared exactly in integers."""
    lanes = [lane for lane in range(len(sizes)) if taken[lane] < sizes[lane]]
    best = lanes[0]
    for lane in lanes[1:]:
        if (2 * int(taken[lane]) + 1) * int(sizes[best]) < (2 * int(taken[best]) + 1) * int(sizes[lane]):
            best = lane
    return best


def _last_lane(sizes: Ints, taken: Ints) -> int:
    """Return the lane whose last seat was given last: the largest (2 taken - 1) / size, the higher number on a tie."""
    lanes = [lane for lane in range(len(sizes)) if taken[lane] > 0]
    worst = lanes[0]
    for lane in lanes[1:]:
        if (2 * int(taken[lane]) - 1) * int(sizes[worst]) >= (2 * int(taken[worst]) - 1) * int(sizes[lane]):
            worst = lane
    return worst


class _Lane:
    """One lane: its shards in order, shuffled window by window, addressable by position."""

    def __init__(self, counts: Ints, shards: Ints, key: tuple[int, ...], window_shards: int) -> None:
        self._counts = counts
        self._key = key
        self._windows = [shards[i : i + window_shards] for i in range(0, len(shards), window_shards)]
        self._bounds = np.concatenate([[0], np.cumsum([counts[window].sum() for window in self._windows])]).astype(
            np.int64
        )
        self._kept: OrderedDict[int, Refs] = OrderedDict()

    @property
    def num_samples(self) -> int:
        return int(self._bounds[-1])

    def take(self, start: int, stop: int) -> Refs:
        """Return the lane's samples start..stop-1."""
        parts: list[Refs] = []
        while start < stop:
            window = int(np.searchsorted(self._bounds, start, side="right")) - 1
            base, end = int(self._bounds[window]), min(stop, int(self._bounds[window + 1]))
            parts.append(self._shuffled(window)[start - base : end - base])
            start = end
        return concat_refs(parts)

    def _shuffled(self, window: int) -> Refs:
        if window not in self._kept:
            shards = self._windows[window]
            sizes = self._counts[shards]
            order = np.random.default_rng((*self._key, window)).permutation(int(sizes.sum()))
            places = sequential_refs(sizes, 0, int(sizes.sum()))
            self._kept[window] = Refs(shards[places.shards][order], places.rows[order])
            while len(self._kept) > _WINDOWS_KEPT:
                self._kept.popitem(last=False)
        return self._kept[window]
