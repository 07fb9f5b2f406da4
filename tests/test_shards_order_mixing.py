"""The figure of how well an order mixes: 1 for a full shuffle, and within its bound for every plan."""

from __future__ import annotations

import numpy as np
import pytest

from shards.order.mixing import bound_clustering, measure_clustering
from shards.order.plan import EpochPlan, OrderOptions, ShardSizes

COUNTS = np.full(40, 25)


def make_plan(seed: int, lanes: int, window: int, batch: int, counts: np.ndarray = COUNTS) -> EpochPlan:
    """A window holds `window` shards of 25 samples."""
    return EpochPlan(ShardSizes(counts, counts), OrderOptions(seed, batch, lanes, window * 25), 0)


def measure(plan: EpochPlan, counts: np.ndarray = COUNTS) -> float:
    return measure_clustering((plan.step(step).shards for step in range(plan.num_steps)), counts)


def test_full_shuffle_has_the_figure_1() -> None:
    shards, rng = np.repeat(np.arange(40), 25), np.random.default_rng(0)
    figures = [measure_clustering(np.split(rng.permutation(shards), 50), COUNTS) for _ in range(100)]
    assert np.mean(figures) == pytest.approx(1, abs=0.02)


def test_order_of_the_shards_as_they_lie_has_the_figure_of_batches_of_one_shard() -> None:
    """20 of a batch of 20 from one shard: all pairs, against 24 of 999 partners."""
    batches = np.split(np.repeat(np.arange(50), 20), 50)
    assert measure_clustering(batches, np.full(50, 20)) == pytest.approx(999 / 19)


@pytest.mark.parametrize("batch", [7, 64])
@pytest.mark.parametrize("window", [1, 3, 40])
@pytest.mark.parametrize("lanes", [1, 8, 30])
def test_plans_stay_within_their_bound(lanes: int, window: int, batch: int) -> None:
    """The bound is on the mean over seeds; the mean of 40 is some 2 % off."""
    plans = [make_plan(seed, lanes, window, batch) for seed in range(40)]
    assert np.mean([measure(plan) for plan in plans]) <= np.mean([bound_clustering(plan) for plan in plans]) * 1.05


def test_bound_is_near_what_is_measured_where_lanes_divide_the_batch() -> None:
    plans = [make_plan(seed, 4, 5, 40) for seed in range(40)]
    assert np.mean([bound_clustering(plan) for plan in plans]) < 1.25 * np.mean([measure(plan) for plan in plans])


def test_more_lanes_and_wider_windows_mix_better() -> None:
    figures = [
        bound_clustering(make_plan(0, lanes, window, 64)) for lanes, window in ((1, 1), (4, 1), (4, 3), (16, 40))
    ]
    assert figures == sorted(figures, reverse=True)
    assert figures[0] > 10
    assert figures[-1] < 1.1


def test_one_window_over_all_is_a_full_shuffle() -> None:
    assert bound_clustering(make_plan(0, 1, 40, 64)) == pytest.approx(1)


@pytest.mark.parametrize(("shards", "lanes"), [(40, 1), (40, 7), (3, 16), (1, 8)])
def test_bound_counts_every_pair_of_pieces_of_a_shard(shards: int, lanes: int) -> None:
    sizes = ShardSizes(np.full(shards, 30), np.full(shards, 30))
    plan = EpochPlan(sizes, OrderOptions(0, 32, lanes, 90), 0)
    assert bound_clustering(plan) == pytest.approx(bound_pair_by_pair(plan), rel=1e-12)


def bound_pair_by_pair(plan: EpochPlan) -> float:
    """The bound as its docstring has it, one pair of pieces after the other."""
    takes = -(-plan.batch_size_global // plan.num_lanes)
    pieces = [
        (number, shard, stop - start, int((window[:, 2] - window[:, 1]).sum()))
        for number, window in enumerate(plan.windows())
        for shard, start, stop in window.tolist()
    ]
    pairs, full = 0.0, 0
    for place, (window, shard, length, size) in enumerate(pieces):
        pairs += length * (length - 1) / 2 * min(1.0, (takes - 1) / max(1, size - 1))
        for other_window, other_shard, other_length, other_size in pieces[:place]:
            if other_shard == shard and other_window != window:
                pairs += length * other_length * min(1.0, takes / max(size, other_size))
    for shard in {piece[1] for piece in pieces}:
        whole = sum(piece[2] for piece in pieces if piece[1] == shard)
        full += whole * (whole - 1) // 2
    return pairs * max(1, plan.num_samples - 1) / (full * (plan.batch_size_global - 1))
