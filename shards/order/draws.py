"""How often an epoch shows each sample: class-balanced, by weights, or only a stratified fraction of the data.

The expected number of draws of a sample is exactly proportional to its weight; the actual number is that, rounded down
or up (systematic sampling with one random offset). In every order, an epoch has a fixed number of draws, so that a
position in samples seen means the same in every epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from shards.errors import UsageError
from shards.order.purposes import BEFORE_VERSIONS, VERSION, Purpose, make_key
from shards.splits.strata import choose_fraction

Labels = npt.NDArray[np.int32] | Sequence[tuple[int, ...]]
Weights = npt.NDArray[np.float32]
Repeats = npt.NDArray[np.uint32]

_CHUNK = 1 << 20  # samples processed in float64 at a time


@dataclass(frozen=True)
class DrawOptions:
    """Which samples an epoch shows, and how often.

    order: plain: each once. balanced: each class equally often, exactly; not for samples with several labels. weighted:
    by the dataset's weights.
    fraction: share of each class that is shown, the same samples in every epoch; a smaller fraction is a subset of a
    larger.
    version: of the random streams, see shards.order.purposes.
    """

    seed: int
    order: Literal["plain", "balanced", "weighted"] = "plain"
    fraction: float = 1.0
    version: int = VERSION

    @property
    def is_plain(self) -> bool:
        """Whether each sample is shown once, so that neither labels nor weights are needed."""
        return self.order == "plain" and self.fraction == 1.0


def count_draws(
    options: DrawOptions, epoch: int, labels: Callable[[], Labels], weights: Callable[[], Weights]
) -> Repeats | None:
    """Return uint32[N], how often this epoch shows each sample, in stored order; None if each is shown once.

    Args:
        options: Which samples, and how often.
        epoch: The epoch's number, from 0.
        labels: Returns int32[N], one label a sample, or N tuples of labels; called only if needed.
        weights: Returns float32[N], at least 0; called only if needed.

    Raises:
        UsageError: Weights that are negative, not finite, or all 0.
    """
    if options.is_plain:
        return None
    stored = labels() if options.order == "balanced" or options.fraction < 1 else []
    by_class = _choose(options, stored) if len(stored) else []
    rng = np.random.default_rng(make_key(Purpose.DRAWS, options.seed, epoch))
    if options.order == "balanced":
        repeats = np.zeros(len(stored), dtype=np.uint32)
        _draw_balanced([members for members in by_class if len(members)], rng, repeats)
        return repeats
    if options.order == "plain":
        repeats = np.zeros(len(stored), dtype=np.uint32)
        for members in by_class:
            repeats[members] = 1
        return repeats
    return _draw_weighted(weights(), by_class, rng)


def count_classes(options: DrawOptions, labels: Labels, num_classes: int) -> tuple[npt.NDArray[np.int64], int]:
    """Return the number of shown samples of each class, int64[num_classes], and their total.

    >>> count_classes(DrawOptions(seed=0, fraction=0.5), np.array([0] * 8 + [2] * 2, dtype=np.int32), 3)
    (array([4, 0, 1]), 5)
    """
    members = np.concatenate([np.empty(0, dtype=np.int64), *_choose(options, labels)])
    if isinstance(labels, np.ndarray):
        shown = labels[members]
    else:
        shown = np.array([label for member in members.tolist() for label in labels[member]], dtype=np.int32)
    return np.bincount(shown, minlength=num_classes).astype(np.int64), len(members)


def _draw_balanced(by_class: list[npt.NDArray[np.int64]], rng: np.random.Generator, repeats: Repeats) -> None:
    total, offset = sum(len(members) for members in by_class), rng.random()
    for number, members in enumerate(by_class):
        bounds = number * total / len(by_class), (number + 1) * total / len(by_class)
        rng.shuffle(members)
        _draw(members, None, bounds, offset, repeats)


def _draw_weighted(weights: Weights, by_class: list[npt.NDArray[np.int64]], rng: np.random.Generator) -> Repeats:
    members = np.concatenate(by_class) if by_class else np.arange(len(weights))
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights[members].sum() > 0):
        raise UsageError(
            "stream.order=weighted draws samples by their weights, which must be finite, at least 0 and not all 0; "
            "correct the weight column of the pictures' table and pack again, or set stream.order=plain"
        )
    repeats, draws = np.zeros(len(weights), dtype=np.uint32), float(len(members))
    members = members[weights[members] > 0]
    rng.shuffle(members)
    _draw(members, weights, (0.0, draws), rng.random(), repeats)
    return repeats


def _draw(
    members: npt.NDArray[np.int64],
    weights: Weights | None,
    bounds: tuple[float, float],
    offset: float,
    repeats: Repeats,
) -> None:
    """Distribute the draws `offset + k` (integer k) between the bounds over the members, in proportion to their
    weights.

    Source: W. G. Madow (1949), On the theory of systematic sampling, II.
    """
    start, stop = bounds
    total = float(len(members)) if weights is None else _sum(weights, members)
    before, done = 0.0, int(np.ceil(start - offset))
    for first in range(0, len(members), _CHUNK):
        chunk = members[first : first + _CHUNK]
        sizes = np.ones(len(chunk)) if weights is None else weights[chunk].astype(np.float64)
        ends = before + np.cumsum(sizes)
        before = float(ends[-1])
        ranks = np.ceil(start + ends * ((stop - start) / total) - offset).astype(np.int64)
        if first + _CHUNK >= len(members):
            ranks[-1] = np.ceil(stop - offset)  # rounding: the cumulative sum may differ from the total
        np.minimum(ranks, int(np.ceil(stop - offset)), out=ranks)
        repeats[chunk] = np.diff(ranks, prepend=done)
        done = int(ranks[-1])


def _sum(weights: Weights, members: npt.NDArray[np.int64]) -> float:
    parts = (members[first : first + _CHUNK] for first in range(0, len(members), _CHUNK))
    return float(sum(weights[part].astype(np.float64).sum() for part in parts))


def _choose(options: DrawOptions, labels: Labels) -> list[npt.NDArray[np.int64]]:
    """Return the samples to train on, one array per class; if samples have several labels, a single array."""
    if not isinstance(labels, np.ndarray):
        assert options.order != "balanced"  # trainer.recipes.misfit refuses it
        seed = int(np.random.SeedSequence(_key_of(options)).generate_state(1)[0])
        return [np.flatnonzero(choose_fraction(labels, options.fraction, seed))]
    by_class = _group(labels)
    if options.fraction == 1:
        return by_class
    keys = (_key_of(options, number) for number in range(len(by_class)))
    return [_keep(members, options.fraction, key) for members, key in zip(by_class, keys, strict=True)]


def _key_of(options: DrawOptions, *number: int) -> tuple[int, ...]:
    """Return the seed for choosing samples of a class, or of all."""
    if options.version == BEFORE_VERSIONS:
        return (options.seed, int(Purpose.FRACTION), *number)
    return make_key(Purpose.FRACTION, options.seed, 0, *number)


def _group(labels: npt.NDArray[np.int32]) -> list[npt.NDArray[np.int64]]:
    """Return the samples of each class, in stored order."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def _keep(members: npt.NDArray[np.int64], fraction: float, key: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Return a random fraction of a class, at least one sample; a larger fraction contains the smaller ones."""
    wanted = max(1, round(len(members) * fraction))
    tickets = np.random.default_rng(key).integers(0, 1 << 63, len(members))
    return np.sort(members[np.argsort(tickets, kind="stable")[:wanted]])
