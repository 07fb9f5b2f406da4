from __future__ import annotations

import json
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shards.plan import EpochPlan, Refs, apportion, deal_shards, sequential_refs, slice_rank

GOLDEN = Path(__file__).parent / "golden" / "plan.json"

# A busy machine is no reason to fail: speed lives in tests/bench.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

COUNTS = st.lists(st.integers(0, 30), min_size=1, max_size=20)
PLANS = st.fixed_dictionaries(
    {
        "counts": COUNTS,
        "seed": st.integers(0, 2**32),
        "epoch": st.integers(0, 100),
        "batch_size_global": st.integers(1, 50),
        "lanes": st.integers(1, 12),
        "window_shards": st.integers(1, 6),
    }
)


def make_plan(**options: Any) -> EpochPlan:
    counts = np.array(options.pop("counts"), dtype=np.int64)
    return EpochPlan(
        counts, **{"seed": 0, "epoch": 0, "batch_size_global": 8, "lanes": 4, "window_shards": 2, **options}
    )


def pairs(refs: Refs) -> list[tuple[int, int]]:
    return list(zip(refs.shards.tolist(), refs.rows.tolist(), strict=True))


def order(plan: EpochPlan) -> list[tuple[int, int]]:
    return [pair for step in range(plan.num_steps) for pair in pairs(plan.step(step))]


def all_samples(counts: list[int]) -> list[tuple[int, int]]:
    return [(shard, row) for shard, count in enumerate(counts) for row in range(count)]


def apportion_by_brute_force(sizes: list[int], seats: int) -> list[int]:
    """Webster's method as a queue: seat k (from 0) of a lane is worth size / (2 k + 1); the highest are given first."""
    queue = sorted((Fraction(2 * k + 1, size), lane) for lane, size in enumerate(sizes) for k in range(size))
    given = [lane for _, lane in queue[:seats]]
    return [given.count(lane) for lane in range(len(sizes))]


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
        parts = [batch[slice_rank(len(batch), rank, num_ranks)] for rank in range(num_ranks)]
        assert [pair for part in parts for pair in pairs(part)] == pairs(batch)


def test_slices_of_ranks_join_to_the_batch_and_differ_by_at_most_one() -> None:
    for size, num_ranks in product(range(40), range(1, 20)):
        slices = [slice_rank(size, rank, num_ranks) for rank in range(num_ranks)]
        assert [place for part in slices for place in range(part.start, part.stop)] == list(range(size))
        lengths = [part.stop - part.start for part in slices]
        assert max(lengths) - min(lengths) <= 1


@given(PLANS)
def test_a_batch_lays_its_lanes_side_by_side(options: dict[str, Any]) -> None:
    plan = make_plan(**options)
    rng = np.random.default_rng((options["seed"], options["epoch"], 0))
    dealt = deal_shards(np.array(options["counts"]), options["lanes"], rng)
    lane_of = {shard: lane for lane, shards in enumerate(dealt) for shard in shards.tolist()}
    for step in range(plan.num_steps):
        lanes = [lane_of[shard] for shard in plan.step(step).shards.tolist()]
        assert lanes == sorted(lanes)


@given(COUNTS, st.integers(1, 12), st.integers(0, 1000))
def test_dealing_gives_every_shard_to_one_lane(counts: list[int], lanes: int, seed: int) -> None:
    dealt = deal_shards(np.array(counts), lanes, np.random.default_rng(seed))
    assert sorted(np.concatenate(dealt).tolist()) == list(range(len(counts)))


@given(COUNTS, st.integers(1, 12), st.integers(0, 1000))
def test_lanes_differ_by_at_most_the_largest_shard(counts: list[int], lanes: int, seed: int) -> None:
    dealt = deal_shards(np.array(counts), lanes, np.random.default_rng(seed))
    held = [sum(counts[shard] for shard in hand.tolist()) for hand in dealt]
    assert max(held) - min(held) <= max(counts)


def test_samples_are_shuffled_among_the_shards_of_a_window_only() -> None:
    plan = make_plan(counts=[5] * 6, lanes=1, window_shards=2, batch_size_global=10)
    assert [len(set(plan.step(step).shards.tolist())) for step in range(3)] == [2, 2, 2]


@given(COUNTS)
def test_sequential_order_is_the_stored_order(counts: list[int]) -> None:
    assert pairs(sequential_refs(np.array(counts), 0, sum(counts))) == all_samples(counts)


@given(COUNTS, st.data())
def test_part_of_the_sequential_order_is_that_part_of_the_whole(counts: list[int], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, sum(counts)))
    stop = data.draw(st.integers(start, sum(counts)))
    assert pairs(sequential_refs(np.array(counts), start, stop)) == all_samples(counts)[start:stop]


def test_apportion_agrees_with_brute_force_on_every_small_case() -> None:
    for lanes in (1, 2, 3):
        for sizes in product(range(7), repeat=lanes):
            for seats in range(sum(sizes) + 1):
                assert apportion(np.array(sizes), seats).tolist() == apportion_by_brute_force(list(sizes), seats)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=12), st.data())
def test_apportion_agrees_with_brute_force_on_larger_cases(sizes: list[int], data: st.DataObject) -> None:
    seats = data.draw(st.integers(0, sum(sizes)))
    assert apportion(np.array(sizes), seats).tolist() == apportion_by_brute_force(sizes, seats)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40), st.data())
def test_apportion_gives_all_seats_and_never_more_than_a_lane_holds(sizes: list[int], data: st.DataObject) -> None:
    seats = data.draw(st.integers(0, sum(sizes)))
    taken = apportion(np.array(sizes), seats)
    assert taken.sum() == seats
    assert (taken >= 0).all()
    assert (taken <= sizes).all()


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40), st.data())
def test_one_more_seat_goes_to_one_lane_and_takes_from_none(sizes: list[int], data: st.DataObject) -> None:
    seats = data.draw(st.integers(0, max(0, sum(sizes) - 1)))
    more = apportion(np.array(sizes), min(seats + 1, sum(sizes))) - apportion(np.array(sizes), seats)
    assert sorted(more.tolist(), reverse=True)[:2] in ([1, 0], [1], [0], [0, 0])
    assert more.min() >= 0


def test_apportion_is_exact_for_a_billion_samples() -> None:
    sizes = np.array([333_333_333, 333_333_334, 333_333_333])
    assert apportion(sizes, 999_999_999).sum() == 999_999_999


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


@settings(max_examples=20)
@given(st.integers(1, 64))
def test_the_order_inside_an_epoch_does_not_depend_on_the_batch_size_with_one_lane(batch_size_global: int) -> None:
    whole = make_plan(counts=[7] * 9, lanes=1, batch_size_global=63)
    parts = make_plan(counts=[7] * 9, lanes=1, batch_size_global=batch_size_global)
    assert order(parts) == order(whole)


@pytest.mark.parametrize("case", json.loads(GOLDEN.read_text())["cases"], ids=lambda case: f"epoch{case['epoch']}")
def test_the_recorded_order_has_not_changed(case: dict[str, Any]) -> None:
    """A change here means that no run can be continued or repeated with the new version: say so in CHANGELOG.md."""
    plan = make_plan(**{key: value for key, value in case.items() if key != "steps"})
    assert [[list(pair) for pair in pairs(plan.step(step))] for step in range(plan.num_steps)] == case["steps"]
