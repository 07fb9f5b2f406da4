"""Random streams of a run are seeded by keys of their own, which are those of runs from before they had names."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from shards.order.draws import DrawOptions, count_draws
from shards.order.purposes import Library, Purpose, make_dropout_key, make_key

SAMPLES = {Purpose.OPERATIONS, Purpose.CROP, Purpose.ERASE, Purpose.BEFORE}
WORDS = {
    Purpose.DEAL: (0,), Purpose.WINDOW: (2,), Purpose.LANE: (1,), Purpose.CUT: (1,), Purpose.FRACTION: (1,),
    Purpose.DRAWS: (0,), Purpose.MIX: (1,), **dict.fromkeys(SAMPLES, (1, 2)),
}  # fmt: skip
"""How many numbers follow the purpose."""
FEW = range(12)
"""More than the epochs, classes and purposes among which streams once met."""


def list_keys() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield whose generator is seeded, and by what, for every stream of two runs in their first epochs."""
    for purpose, seed, epoch in itertools.product(Purpose, (0, 1), FEW):
        if purpose == Purpose.FRACTION and epoch:
            continue
        for count in WORDS[purpose]:
            for rest in itertools.product(FEW if count == 1 else range(4), repeat=count):
                if count == 2 and purpose in SAMPLES and rest[1] == 0:
                    continue  # a first showing goes without its copy
                for library in Library if purpose in SAMPLES else (Library.NUMPY,):
                    yield library.name, make_key(purpose + library, seed, epoch, *rest)
    for seed, step, rank in itertools.product((0, 1), FEW, range(100)):
        yield Library.TORCH.name, make_dropout_key(seed, step, rank)


def test_no_two_streams_of_a_run_are_seeded_alike() -> None:
    keys = list(list_keys())
    states = {(library, np.random.SeedSequence(key).generate_state(4).tobytes()) for library, key in keys}
    assert len(states) == len(keys) > 10_000


def test_libraries_do_not_reach_into_each_others_purposes() -> None:
    assert set(WORDS) == set(Purpose)
    assert max(Purpose) < Library.PYTHON < Library.TORCH == 2 * Library.PYTHON


def test_numbers_are_those_of_runs_that_began_before_they_had_names() -> None:
    """Another number is another order or other pixels for the same seed."""
    assert {purpose.name: purpose.value for purpose in Purpose} == {
        "DEAL": 0, "WINDOW": 1, "OPERATIONS": 2, "LANE": 3, "CUT": 4, "CROP": 5, "FRACTION": 6, "DRAWS": 7, "ERASE": 8,
        "BEFORE": 9, "MIX": 10,
    }  # fmt: skip
    assert [library.value for library in Library] == [0, 16, 32]


@pytest.mark.parametrize("rank", [0, 1, 31])
def test_dropout_is_seeded_as_ever(rank: int) -> None:
    assert make_dropout_key(7, 3, rank) == (7, 3, rank)


@pytest.mark.parametrize(("version", "key"), [(1, (5, 6)), (2, (5, 0, 6))])
def test_part_of_a_class_is_drawn_by_the_key_of_the_version_that_the_run_began_with(
    version: int, key: tuple[int, ...]
) -> None:
    """Of three classes of 20; the lowest tickets of each take part."""
    labels = np.repeat(np.arange(3, dtype=np.int32), 20)
    repeats = count_draws(DrawOptions(5, "plain", 0.25, version), 9, lambda: labels, lambda: np.ones(60, np.float32))
    expected = []
    for number in range(3):
        tickets = np.random.default_rng((*key, number)).integers(0, 1 << 63, 20)
        expected += sorted(20 * number + np.argsort(tickets)[:5])
    assert repeats is not None
    assert np.flatnonzero(repeats).tolist() == expected
