"""How well an order mixes: how often two samples of one shard, or of one class, meet, relative to a full shuffle.

1 means a full shuffle. A shard's samples were put there by a seeded permutation, so meeting often is harmless in
itself; a figure far above 1 means that the same pairs meet in every epoch.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from shards.order.plan import EpochPlan, Ints


def measure_clustering(batches: Iterable[Ints], counts: Ints) -> float:
    """Return how often samples of one shard share a batch, relative to a full shuffle.

    Args:
        batches: For each batch, the shard of each of its samples, int64[B].
        counts: int64[num_shards], samples of each shard.
    """
    pairs, expected, total = 0, 0.0, int(counts.sum())
    within = _count_pairs(counts) / max(1, total * (total - 1) // 2)
    for shards in batches:
        pairs += _count_pairs(np.bincount(shards))
        expected += within * len(shards) * (len(shards) - 1) / 2
    return pairs / expected if expected else 1.0


def measure_sorting(class_counts: Ints, counts: Ints) -> float:
    """Return how far shards are sorted by class: 0 for well-mixed shards, 1 if each shard has a single class.

    It is how much likelier two samples of one shard share a class than any two samples, relative to the possible
    maximum: about 0, above or below, if samples were shuffled before they were cut into shards.

    Args:
        class_counts: int64[num_shards, K], samples of each class; a sample with several labels counts for each.
        counts: int64[num_shards], samples.

    >>> fair, pure = np.array([[5, 5], [5, 5]]), np.array([[10, 0], [0, 10]])
    >>> [round(measure_sorting(each, each.sum(axis=1)), 2) for each in (fair, pure)]
    [-0.06, 1.0]
    """
    totals, number = class_counts.sum(axis=0), int(counts.sum())
    within = (class_counts * (class_counts - 1)).sum() / max(1, int((counts * (counts - 1)).sum()))
    anywhere = (totals * (totals - 1)).sum() / max(1, number * (number - 1))
    most = totals.sum() / max(1, number)
    return float((within - anywhere) / (most - anywhere)) if most > anywhere else 0.0


def bound_clustering(plan: EpochPlan) -> float:
    """Return an upper bound of the expected `measure_clustering` of a plan.

    A lane gives at most t = ceil(B / lanes) samples to a batch, and its window of M samples is a random permutation:
    two samples of the window share a batch with probability at most (t - 1) / (M - 1), two of different lanes with at
    most t / M.
    """
    takes = -(-plan.batch_size_global // plan.num_lanes)
    pairs, total = 0.0, plan.num_samples
    pieces, sizes = [], []
    for window in plan.windows():
        lengths = window[:, 2] - window[:, 1]
        size = int(lengths.sum())
        pairs += _count_pairs(lengths) * min(1.0, (takes - 1) / max(1, size - 1))
        pieces.append(np.stack([window[:, 0], lengths], axis=1))
        sizes.append(np.full(len(window), size))
    if not pieces:
        return 1.0
    shards, lengths = np.concatenate(pieces).T
    pairs += _bound_cut(shards, lengths, np.concatenate(sizes), takes)
    whole = np.bincount(shards, weights=lengths).astype(np.int64)
    full = _count_pairs(whole) * (plan.batch_size_global - 1)
    return pairs * max(1, total - 1) / full if full else 1.0


def _bound_cut(shards: Ints, lengths: Ints, sizes: Ints, takes: int) -> float:
    """Return the bound of the pairs whose samples are in different pieces of a shard; few shards have several."""
    pairs, cut = 0.0, np.bincount(shards)[shards] > 1
    shards, lengths, sizes = shards[cut], lengths[cut], sizes[cut]
    for shard in np.unique(shards).tolist():
        own = np.flatnonzero(shards == shard)
        for number, here in enumerate(own.tolist()):
            others = own[:number]
            shares = np.minimum(1.0, takes / np.maximum(sizes[here], sizes[others]))
            pairs += float((lengths[here] * lengths[others] * shares).sum())
    return pairs


def _count_pairs(counts: Ints) -> int:
    return int((counts * (counts - 1) // 2).sum())
