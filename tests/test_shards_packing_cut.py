"""Cutting into shards as arithmetic: every picture once, in a seeded order, never too much in one shard."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.errors import ShardError
from shards.packing.cut import ShardPlan, Start, plan_shards, refuse_lost_classes
from shards.sources.model import SPLITS, Source

PICTURES = st.lists(st.tuples(st.integers(0, 50), st.sampled_from([*SPLITS, ""])), max_size=60)
SHARD_BYTES = st.integers(1, 120)


def cut(pictures: list[tuple[int, str]], seed: int, shard_bytes: int, start: Start = Start()) -> list[ShardPlan]:
    sizes, splits = [size for size, _ in pictures], [split for _, split in pictures]
    return plan_shards(sizes, splits, seed=seed, shard_bytes=shard_bytes, start=start)


def flatten(plan: list[ShardPlan]) -> list[tuple[str, str, int, list[int]]]:
    return [(shard.split, shard.name, shard.first_id, shard.members.tolist()) for shard in plan]


@given(PICTURES, st.integers(0, 9), SHARD_BYTES)
def test_every_picture_of_a_split_is_in_one_shard_of_it(
    pictures: list[tuple[int, str]], seed: int, shard_bytes: int
) -> None:
    plan = cut(pictures, seed, shard_bytes)
    placed = sorted((row, shard.split) for shard in plan for row in shard.members.tolist())
    assert placed == [(row, split) for row, (_, split) in enumerate(pictures) if split]


@given(PICTURES, st.integers(0, 9), SHARD_BYTES)
def test_a_shard_holds_one_picture_or_no_more_than_its_bytes_and_the_next_one_would_not_have_fitted(
    pictures: list[tuple[int, str]], seed: int, shard_bytes: int
) -> None:
    plan = cut(pictures, seed, shard_bytes)
    held = [[pictures[row][0] for row in shard.members.tolist()] for shard in plan]
    assert all(sizes and (len(sizes) == 1 or sum(sizes) <= shard_bytes) for sizes in held)
    for (shard, sizes), (follower, more) in pairwise(zip(plan, held, strict=True)):
        assert shard.split != follower.split or sum(sizes) + more[0] > shard_bytes


@given(PICTURES, st.integers(0, 9), SHARD_BYTES, st.integers(0, 99), st.integers(0, 5), st.integers(0, 3))
def test_ids_and_names_run_on_from_where_they_start(
    pictures: list[tuple[int, str]], seed: int, shard_bytes: int, first_id: int, first_shard: int, update: int
) -> None:
    plan = cut(pictures, seed, shard_bytes, Start(first_id, dict.fromkeys(SPLITS, first_shard), update))
    lengths = [len(shard.members) for shard in plan]
    assert [shard.first_id for shard in plan] == [first_id + sum(lengths[:number]) for number in range(len(plan))]
    for split in SPLITS:
        names = [shard.name for shard in plan if shard.split == split]
        assert names == [f"{split}/{first_shard + number:06d}.tar" for number in range(len(names))]


@given(PICTURES, st.integers(0, 9), SHARD_BYTES)
def test_the_plan_is_a_function_of_its_arguments(pictures: list[tuple[int, str]], seed: int, shard_bytes: int) -> None:
    assert flatten(cut(pictures, seed, shard_bytes)) == flatten(cut(pictures, seed, shard_bytes))


def order(seed: int, update: int = 0, split: str = "train") -> list[int]:
    plan = cut([(1, split)] * 40, seed, 1000, Start(update=update))
    return plan[0].members.tolist()


def test_orders_of_seeds_splits_and_updates_all_differ() -> None:
    orders = [order(seed, update, split) for seed in range(4) for update in range(4) for split in SPLITS]
    assert len({tuple(members) for members in orders}) == len(orders)
    assert list(range(40)) not in orders


def test_shards_of_a_sorted_folder_are_a_fair_mix() -> None:
    """Class 0 first, then class 1: of 40 shards of 50 pictures none lies further than 4 sigma from a half."""
    labels = np.repeat([0, 1], 1000)
    plan = cut([(1, "train")] * 2000, 0, 50)
    shares = np.array([labels[shard.members].mean() for shard in plan])
    assert len(shares) == 40
    assert np.abs(shares - 0.5).max() < 4 * 0.5 / np.sqrt(50)


def test_splits_come_in_the_order_train_val_test_all() -> None:
    assert [shard.split for shard in cut([(1, "all"), (1, "test"), (1, "val"), (1, "train")], 0, 9)] == list(SPLITS)


def test_sizes_beyond_32_bits_are_added_right() -> None:
    plan = cut([(3 << 30, "train")] * 4, 0, 7 << 30)
    assert [len(shard.members) for shard in plan] == [2, 2]


SOURCES = [Source("a/1.png", ("a",), None, 1), Source("b/1.png", ("b",), None, 1), Source("x.png", ("a", "c"), None, 1)]


@pytest.mark.parametrize(
    ("splits", "lost"),
    [(("train", "test", "train"), "b"), (("train", "train", "val"), "c"), (("val", "train", ""), "a")],
)
def test_class_without_a_picture_in_train_is_named(splits: tuple[str, ...], lost: str) -> None:
    plan = plan_shards([1, 1, 1], splits, seed=0, shard_bytes=9)
    with pytest.raises(ShardError, match=f"class '{lost}' has no readable picture in train"):
        refuse_lost_classes(plan, SOURCES, ["a", "b", "c"])


def test_classes_that_are_all_in_train_pass() -> None:
    refuse_lost_classes(plan_shards([1, 1, 1], ["train"] * 3, seed=0, shard_bytes=9), SOURCES, ["a", "b", "c"])


def test_unlabelled_pictures_lose_no_class() -> None:
    bare = [dataclasses.replace(source, labels=()) for source in SOURCES]
    refuse_lost_classes(plan_shards([1, 1, 1], ["all"] * 3, seed=0, shard_bytes=9), bare, [])


def test_plan_without_a_shard_is_refused() -> None:
    with pytest.raises(ShardError, match="no picture is left to pack"):
        refuse_lost_classes(plan_shards([1], [""], seed=0, shard_bytes=9), SOURCES[:1], [])
