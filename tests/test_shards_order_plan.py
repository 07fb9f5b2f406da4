from __future__ import annotations

import json
import tracemalloc
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.order.plan import EpochPlan, OrderOptions, Refs, ShardSizes, sequential_refs, slice_rank

GOLDEN = Path(__file__).parent / "golden" / "plan.json"

COUNTS = st.lists(st.integers(0, 30), min_size=1, max_size=20)
PLANS = st.fixed_dictionaries(
    {
        "counts": COUNTS,
        "seed": st.integers(0, 2**32),
        "epoch": st.integers(0, 100),
        "batch_size_global": st.integers(1, 50),
        "lanes": st.integers(1, 12),
        "window_bytes": st.integers(1, 300),
        "redeal": st.booleans(),
    }
)
SAMPLE_BYTES = 10


def make_sizes(counts: list[int], repeats: list[int] | None = None) -> ShardSizes:
    """Shards of samples of 10 bytes each."""
    drawn = None if repeats is None else np.array(repeats, dtype=np.uint32)
    return ShardSizes(np.array(counts, dtype=np.int64), np.array(counts, dtype=np.int64) * SAMPLE_BYTES, drawn)


def make_plan(**options: Any) -> EpochPlan:
    sizes = make_sizes(options.pop("counts"), options.pop("repeats", None))
    epoch = options.pop("epoch", 0)
    return EpochPlan(
        sizes, OrderOptions(**{"seed": 0, "batch_size_global": 8, "lanes": 4, "window_bytes": 100, **options}), epoch
    )


def pairs(refs: Refs) -> list[tuple[int, int]]:
    return list(zip(refs.shards.tolist(), refs.rows.tolist(), strict=True))


def order(plan: EpochPlan) -> list[tuple[int, int]]:
    return [pair for step in range(plan.num_steps) for pair in pairs(plan.step(step))]


def all_samples(counts: list[int]) -> list[tuple[int, int]]:
    return [(shard, row) for shard, count in enumerate(counts) for row in range(count)]


@given(PLANS)
def test_an_epoch_holds_every_sample_exactly_once(options: dict[str, Any]) -> None:
    assert sorted(order(make_plan(**options))) == all_samples(options["counts"])


@given(PLANS)
def test_every_step_but_the_last_is_full_and_the_last_takes_the_rest(options: dict[str, Any]) -> None:
    plan = make_plan(**options)
    sizes = [len(plan.step(step)) for step in range(plan.num_steps)]
    full, rest = divmod(sum(options["counts"]), options["batch_size_global"])
    assert sizes == [options["batch_size_global"]] * full + [rest] * bool(rest)


@given(PLANS, st.randoms(use_true_random=False))
def test_a_step_is_the_same_whatever_was_asked_before(options: dict[str, Any], random: Any) -> None:
    in_order = make_plan(**options)
    expected = [pairs(in_order.step(step)) for step in range(in_order.num_steps)]
    steps = list(range(in_order.num_steps)) * 2
    random.shuffle(steps)
    jumping = make_plan(**options)
    assert [pairs(jumping.step(step)) for step in steps] == [expected[step] for step in steps]


@given(PLANS)
def test_the_order_is_a_function_of_its_arguments(options: dict[str, Any]) -> None:
    assert order(make_plan(**options)) == order(make_plan(**options))


@given(PLANS, st.integers(1, 9))
def test_the_order_is_the_same_for_every_number_of_ranks(options: dict[str, Any], num_ranks: int) -> None:
    plan = make_plan(**options)
    for step in range(plan.num_steps):
        batch = plan.step(step)
        parts = [plan.slice(step, rank, num_ranks) for rank in range(num_ranks)]
        assert [pair for part in parts for pair in pairs(part)] == pairs(batch)


@given(PLANS, st.integers(1, 40))
def test_slices_of_a_step_differ_by_at_most_one(options: dict[str, Any], num_ranks: int) -> None:
    """Fewer samples than ranks included: then some are empty."""
    plan = make_plan(**options)
    for step in range(plan.num_steps):
        lengths = [len(plan.slice(step, rank, num_ranks)) for rank in range(num_ranks)]
        assert max(lengths) - min(lengths) <= 1
        assert sum(lengths) == plan.step_size(step)


def test_slices_of_ranks_join_to_the_batch_and_differ_by_at_most_one() -> None:
    for size, num_ranks in product(range(40), range(1, 20)):
        slices = [slice_rank(size, rank, num_ranks) for rank in range(num_ranks)]
        assert [place for part in slices for place in range(part.start, part.stop)] == list(range(size))
        lengths = [part.stop - part.start for part in slices]
        assert max(lengths) - min(lengths) <= 1


@given(COUNTS, st.integers(1, 6), st.integers(1, 5), st.integers(0, 1000))
def test_rank_stays_in_its_own_lanes_where_ranks_divide_lanes_and_lanes_divide_the_batch(
    counts: list[int], num_ranks: int, per_rank: int, seed: int
) -> None:
    """Lanes are then runs of equal length: what two ranks share is at most the shard that their border cuts."""
    lanes = num_ranks * per_rank
    plan = make_plan(counts=counts, seed=seed, lanes=lanes, batch_size_global=2 * lanes)
    shards = [
        {shard for part in plan.slices(0, rank, num_ranks) for shard in part.shards.tolist()}
        for rank in range(num_ranks)
    ]
    full = sum(counts) // plan.batch_size_global * plan.batch_size_global
    if full == sum(counts):  # a short last step is cut anew
        assert sum(map(len, shards)) <= sum(count > 0 for count in counts) + num_ranks - 1


def test_batch_smaller_than_the_lanes_draws_from_lanes_all_over_it() -> None:
    """With 8 lanes and batches of 2, each of two ranks keeps to its own half of the lanes."""
    plan = make_plan(counts=[10] * 16, lanes=8, batch_size_global=2, window_bytes=1)
    shards = [{shard for part in plan.slices(0, rank, 2) for shard in part.shards.tolist()} for rank in (0, 1)]
    assert not shards[0] & shards[1]


@given(PLANS)
def test_plan_without_redealing_keeps_the_shards_of_a_lane_and_changes_their_order(options: dict[str, Any]) -> None:
    options = {**options, "redeal": False, "lanes": 2, "batch_size_global": 2}
    first, second = (make_plan(**{**options, "epoch": epoch}) for epoch in (3, 4))
    for rank in (0, 1):
        seen = [sorted(pair for part in plan.slices(0, rank, 2) for pair in pairs(part)) for plan in (first, second)]
        if first.num_samples % 2 == 0:
            assert seen[0] == seen[1]


def test_epochs_without_redealing_come_in_another_order() -> None:
    first, second = (make_plan(counts=[9] * 12, redeal=False, epoch=epoch) for epoch in (0, 1))
    assert order(first) != order(second)


def test_lanes_change_windows_in_turns() -> None:
    """All at once would mean that every shard of a node's next windows is wanted in one moment."""
    plan = make_plan(counts=[10] * 64, lanes=4, window_bytes=400, batch_size_global=4)
    changes = []
    for lane in range(4):
        shards = [plan.slice(step, lane, 4).shards.tolist()[0] for step in range(plan.num_steps)]
        ends = {shard: step for step, shard in enumerate(shards)}
        begins = {shard: step for step, shard in reversed(list(enumerate(shards)))}
        fresh = [step for step in range(1, len(shards)) if all(ends[s] < step for s in shards[:step])]
        assert fresh
        assert all(begins[shards[step]] >= fresh[0] for step in fresh)
        changes.append(fresh[0])
    assert len(set(changes)) == 4


def test_samples_are_shuffled_among_the_shards_of_a_window_only() -> None:
    plan = make_plan(counts=[5] * 6, lanes=1, window_bytes=2 * 5 * SAMPLE_BYTES, batch_size_global=10)
    assert [len(set(plan.step(step).shards.tolist())) for step in range(3)] == [2, 2, 2]


def test_window_smaller_than_a_shard_holds_one() -> None:
    plan = make_plan(counts=[5] * 6, lanes=1, window_bytes=1, batch_size_global=5)
    assert [len(set(plan.step(step).shards.tolist())) for step in range(6)] == [1] * 6


@given(PLANS, st.integers(0, 2**32))
def test_an_epoch_shows_each_sample_as_often_as_it_is_told(options: dict[str, Any], seed: int) -> None:
    repeats = np.random.default_rng(seed).integers(0, 4, sum(options["counts"])).tolist()
    plan = make_plan(**options, repeats=repeats)
    shown = sorted(
        row
        for step in range(plan.num_steps)
        for refs in [plan.step(step)]
        for row in zip(refs.shards.tolist(), refs.rows.tolist(), refs.copies.tolist(), strict=True)
    )
    stored = all_samples(options["counts"])
    assert shown == [(*place, copy) for place, times in zip(stored, repeats, strict=True) for copy in range(times)]


@given(COUNTS)
def test_sequential_order_is_the_stored_order(counts: list[int]) -> None:
    assert pairs(sequential_refs(np.array(counts), 0, sum(counts))) == all_samples(counts)


@given(COUNTS, st.data())
def test_part_of_the_sequential_order_is_that_part_of_the_whole(counts: list[int], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, sum(counts)))
    stop = data.draw(st.integers(start, sum(counts)))
    assert pairs(sequential_refs(np.array(counts), start, stop)) == all_samples(counts)[start:stop]


def test_epochs_differ() -> None:
    assert len({tuple(order(make_plan(counts=[6] * 8, epoch=epoch))) for epoch in range(20)}) == 20


def test_epoch_1_of_seed_0_is_not_epoch_0_of_seed_1() -> None:
    counts = [6] * 8
    assert order(make_plan(counts=counts, seed=0, epoch=1)) != order(make_plan(counts=counts, seed=1, epoch=0))


def test_far_epochs_of_far_seeds_are_all_different() -> None:
    orders = {tuple(order(make_plan(counts=[3] * 8, seed=s, epoch=e))) for s, e in product(range(8), range(8))}
    assert len(orders) == 64


def test_empty_split_has_no_steps() -> None:
    assert make_plan(counts=[0, 0]).num_steps == 0


@given(st.integers(1, 64))
def test_the_order_inside_an_epoch_does_not_depend_on_the_batch_size_with_one_lane(batch_size_global: int) -> None:
    whole = make_plan(counts=[7] * 9, lanes=1, batch_size_global=63)
    parts = make_plan(counts=[7] * 9, lanes=1, batch_size_global=batch_size_global)
    assert order(parts) == order(whole)


def test_plan_of_a_billion_samples_holds_its_shard_table_and_windows_only() -> None:
    """1e9 samples in 1e5 shards; the rank that works out one step of it takes 25 MB, a byte a sample would be 1 GB."""
    counts = np.full(100_000, 10_000, dtype=np.int64)
    sizes = ShardSizes(counts, counts * 50_000)
    options = OrderOptions(seed=1, batch_size_global=8192, lanes=1024, window_bytes=1 << 30)
    tracemalloc.start()
    part = EpochPlan(sizes, options, 3).slice(70_000, 511, 1024)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(part) == 8
    assert peak < 25e6


@pytest.mark.parametrize(
    "case",
    json.loads(GOLDEN.read_text())["cases"],
    ids=lambda case: f"seed{case['seed']}-epoch{case['epoch']}-lanes{case['lanes']}",
)
def test_the_recorded_order_has_not_changed(case: dict[str, Any]) -> None:
    """A change here means that no run can be continued or repeated with the new version: say so in CHANGELOG.md."""
    plan = make_plan(**{key: value for key, value in case.items() if key != "steps"})
    assert [[list(pair) for pair in pairs(plan.step(step))] for step in range(plan.num_steps)] == case["steps"]
