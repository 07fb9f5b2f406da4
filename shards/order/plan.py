"""The order of an epoch: a pure function of (seed, epoch, shard table, lanes, window), with numpy only.

Shards are permuted, and the sequence of their samples is cut into lanes of equal length. Within a lane, samples are
shuffled in windows of several shards. Each global batch concatenates its share of every lane. The order does not
depend on ranks or loader workers: a rank takes a contiguous slice of each batch, and computes only the lanes in that
slice. Memory holds the shard table and the windows that a step touches, never an entry per sample (except in orders
that repeat samples, see shards.order.draws).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from shards.order.purposes import Purpose, make_key

Ints = npt.NDArray[np.int64]

_WINDOWS_KEPT = 3  # the current window, the next one, and the previous one for a late worker


@dataclass(frozen=True)
class Refs:
    """Samples by position: shards, rows (position inside the shard) and copies, int64[n] each.

    copies: how often the epoch has already shown the sample; 0 in orders without repetition.
    """

    shards: Ints
    rows: Ints
    copies: Ints

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, part: slice | Ints) -> Refs:
        return Refs(self.shards[part], self.rows[part], self.copies[part])


def concat_refs(parts: list[Refs]) -> Refs:
    """Return the concatenated samples of all parts."""
    empty = np.empty(0, dtype=np.int64)
    return Refs(
        np.concatenate([empty, *(part.shards for part in parts)]),
        np.concatenate([empty, *(part.rows for part in parts)]),
        np.concatenate([empty, *(part.copies for part in parts)]),
    )


@dataclass(frozen=True)
class OrderOptions:
    """What determines an order besides the shard table and the epoch.

    batch_size_global: samples of a step over all ranks; the last step of an epoch has the remainder.
    lanes: independent sequences that each batch draws from. A multiple of the number of nodes that also divides
        batch_size_global keeps each node to its share of the data.
    window_bytes: bytes of a lane's shards that are shuffled together; at least one shard.
    redeal: deal shards to lanes anew each epoch; otherwise each lane keeps its shards, in another order.
    """

    seed: int
    batch_size_global: int
    lanes: int = 8
    window_bytes: int = 256 << 20
    redeal: bool = True


@dataclass(frozen=True)
class ShardSizes:
    """What a plan needs to know about the shards: counts and bytes, int64[num_shards].

    repeats: how often an epoch shows each sample, in stored order, uint32[sum(counts)]; None means once.
    """

    counts: Ints
    bytes: Ints
    repeats: npt.NDArray[np.uint32] | None = None

    @cached_property
    def starts(self) -> Ints:
        """int64[num_shards]: number of samples stored before each shard."""
        return np.cumsum(self.counts) - self.counts

    @cached_property
    def draws(self) -> Ints:
        """int64[num_shards]: number of draws from each shard in an epoch."""
        if self.repeats is None:
            return self.counts
        drawn = np.zeros_like(self.counts)
        filled = np.flatnonzero(self.counts)
        if len(filled):
            drawn[filled] = np.add.reduceat(self.repeats, self.starts[filled], dtype=np.int64)
        return drawn

    def place(self, shard: int) -> Refs:
        """Return the samples of one shard, each as often as an epoch draws it, in stored order."""
        count = int(self.counts[shard])
        rows = np.arange(count, dtype=np.int64)
        if self.repeats is None:
            return Refs(np.full(count, shard, dtype=np.int64), rows, np.zeros(count, dtype=np.int64))
        times = self.repeats[self.starts[shard] : self.starts[shard] + count].astype(np.int64)
        first = np.cumsum(times) - times
        copies = np.arange(int(times.sum()), dtype=np.int64) - np.repeat(first, times)
        return Refs(np.full(len(copies), shard, dtype=np.int64), np.repeat(rows, times), copies)


class EpochPlan:
    """The global batches of one epoch; `step(s)` costs the same for every s."""

    def __init__(self, sizes: ShardSizes, options: OrderOptions, epoch: int) -> None:
        self.batch_size_global = options.batch_size_global
        self.num_samples = int(sizes.draws.sum())
        self._lanes = _Lanes(sizes, options, epoch)
        # A lane's place in each round is its number with its bits reversed. Any run of places, so also a batch smaller
        # than the number of lanes, then takes its lanes from all over, and every rank takes its own lanes.
        self._seats = _reverse_bits(options.lanes)
        self._opened: dict[int, _Lane] = {}

    @property
    def num_steps(self) -> int:
        return -(-self.num_samples // self.batch_size_global)

    @property
    def num_lanes(self) -> int:
        return self._lanes.number

    def windows(self) -> Iterator[Ints]:
        """Yield the windows of all lanes: int64[n, 3], the ranges of shards (shard, start, stop) shuffled together."""
        for number in range(self.num_lanes):
            yield from self._lanes.open(number, self._share(self.num_samples)).windows

    def step_size(self, step: int) -> int:
        """Return the number of samples in the global batch of a step."""
        return max(0, min(self.batch_size_global, self.num_samples - step * self.batch_size_global))

    def step(self, step: int) -> Refs:
        """Return the global batch of a step: the shares of all lanes, concatenated."""
        return self.slice(step, 0, 1)

    def slice(self, step: int, rank: int, num_ranks: int) -> Refs:
        """Return a rank's slice of a global batch; lanes of other ranks are not computed."""
        start = step * self.batch_size_global
        first, last = self._share(start), self._share(start + self.step_size(step))
        ends = np.cumsum(last - first)
        mine = slice_rank(self.step_size(step), rank, num_ranks)
        parts = []
        for lane in range(int(np.searchsorted(ends, mine.start, side="right")), self._lanes.number):
            begin = int(ends[lane] - (last[lane] - first[lane]))  # of this lane in the batch
            if begin >= mine.stop:
                break
            skipped = max(0, mine.start - begin)
            stop = min(int(last[lane]), int(first[lane]) + mine.stop - begin)
            parts.append(self._lane(lane).take(int(first[lane]) + skipped, stop))
        return concat_refs(parts)

    def slices(self, first_step: int, rank: int, num_ranks: int) -> Iterator[Refs]:
        """Yield a rank's slices of all steps from `first_step` on."""
        for step in range(first_step, self.num_steps):
            yield self.slice(step, rank, num_ranks)

    def _share(self, position: int) -> Ints:
        """Return int64[lanes]: how many of the first `position` samples of the epoch come from each lane."""
        lanes = self._lanes.number
        share: Ints = (position - self._seats + lanes - 1) // lanes
        return share

    def _lane(self, number: int) -> _Lane:
        if number not in self._opened:
            self._opened[number] = self._lanes.open(number, self._share(self.num_samples))
        return self._opened[number]


def sequential_refs(counts: Ints, start: int, stop: int) -> Refs:
    """Return samples start..stop-1 in stored order, as evaluation reads them."""
    bounds = np.concatenate([[0], np.cumsum(counts)])
    positions = np.arange(start, stop, dtype=np.int64)
    shards = np.searchsorted(bounds, positions, side="right") - 1
    return Refs(shards, positions - bounds[shards], np.zeros_like(positions))


def slice_rank(size: int, rank: int, num_ranks: int) -> slice:
    """Return the contiguous slice of a global batch for a rank; sizes differ by at most one.

    >>> [slice_rank(5, rank, 3) for rank in range(3)]
    [slice(0, 1, None), slice(1, 3, None), slice(3, 5, None)]
    """
    return slice(size * rank // num_ranks, size * (rank + 1) // num_ranks)


def _reverse_bits(number: int) -> Ints:
    """Return int64[number], a permutation: the rank of each index when its bits are reversed (van der Corput).

    >>> _reverse_bits(8).tolist()
    [0, 4, 2, 6, 1, 5, 3, 7]
    """
    bits = max(1, (number - 1).bit_length())
    indices = np.arange(number, dtype=np.int64)
    reverse = sum(((indices >> bit) & 1) << (bits - 1 - bit) for bit in range(bits))
    return np.argsort(np.argsort(reverse)).astype(np.int64)


class _Lanes:
    """The shards of one epoch in dealt order, and where each lane begins in the sequence of their samples."""

    def __init__(self, sizes: ShardSizes, options: OrderOptions, epoch: int) -> None:
        self.number = options.lanes
        self._sizes = sizes
        self._options = options
        self._epoch = epoch
        # (seed, epoch), not seed + epoch: with the sum, epoch 1 of seed 0 would repeat epoch 0 of seed 1.
        self._deal_key = (options.seed, epoch if options.redeal else 0)
        self._dealt = np.random.default_rng(make_key(Purpose.DEAL, *self._deal_key)).permutation(len(sizes.draws))
        self._ends = np.cumsum(sizes.draws[self._dealt])

    def open(self, number: int, lengths: Ints) -> _Lane:
        """Return one lane; `lengths` are the numbers of samples of all lanes."""
        stop = int(lengths[: number + 1].sum())
        start = stop - int(lengths[number])
        first = int(np.searchsorted(self._ends, start, side="right"))
        last = int(np.searchsorted(self._ends, stop, side="left")) + 1
        shards = self._dealt[first:last]
        ends = self._ends[first:last]
        begins = ends - self._sizes.draws[shards]
        pieces = np.stack([shards, np.maximum(start, begins) - begins, np.minimum(stop, ends) - begins], axis=1)
        pieces = pieces[pieces[:, 2] > pieces[:, 1]]  # shards without samples have no place
        key = (self._options.seed, self._epoch)
        order = np.random.default_rng(make_key(Purpose.LANE, *key, number)).permutation(len(pieces))
        # Lanes start new windows in turn, not all at once, so that downloads are spread evenly.
        ahead = self._options.window_bytes * number // self.number
        return _Lane(self, pieces[order], make_key(Purpose.WINDOW, *key, number), self._options.window_bytes, ahead)

    def place(self, shard: int, start: int, stop: int) -> Refs:
        """Return draws start..stop-1 of a shard. If two lanes share the shard, each gets a random part of it."""
        drawn = self._sizes.place(shard)
        if stop - start == len(drawn):
            return drawn
        mixed = np.random.default_rng(make_key(Purpose.CUT, *self._deal_key, shard)).permutation(len(drawn))
        return drawn[mixed[start:stop]]

    def count_bytes(self, shards: Ints) -> Ints:
        return self._sizes.bytes[shards]


class _Lane:
    """One lane: pieces int64[n, 3] of (shard, start, stop), shuffled window by window, addressable by position."""

    def __init__(self, lanes: _Lanes, pieces: Ints, key: tuple[int, ...], window_bytes: int, ahead: int) -> None:
        self._lanes = lanes
        self._key = key
        nbytes = lanes.count_bytes(pieces[:, 0])
        windows = (np.cumsum(nbytes) - nbytes + ahead) // window_bytes  # the window in which a shard begins
        cuts = np.flatnonzero(np.diff(windows)) + 1
        self.windows = np.split(pieces, cuts) if len(pieces) else []
        lengths = [int((window[:, 2] - window[:, 1]).sum()) for window in self.windows]
        self._bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self._kept: OrderedDict[int, Refs] = OrderedDict()

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
            placed = concat_refs([self._lanes.place(*piece) for piece in self.windows[window].tolist()])
            self._kept[window] = placed[np.random.default_rng((*self._key, window)).permutation(len(placed))]
            while len(self._kept) > _WINDOWS_KEPT:
                self._kept.popitem(last=False)
        return self._kept[window]
