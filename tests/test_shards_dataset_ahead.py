"""What is announced of a coming order: shards in the order of first need; none that is still read is let go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from shards.dataset import ahead
from shards.dataset.ahead import look_ahead
from shards.order.plan import EpochPlan, OrderOptions, Refs, ShardSizes

COUNTS = np.full(30, 20)


class Reader:
    """A reader as the look-ahead sees it: it notes what was announced, and may fetch `ahead_bytes`."""

    def __init__(self, ahead_bytes: int) -> None:
        self.ahead_bytes = ahead_bytes
        self.announced: list[list[int]] = []

    def shard_bytes(self, _shard: int) -> int:
        return 100

    def announce(self, shards: Sequence[int]) -> None:
        self.announced.append(list(shards))


def make_batches(batch: int = 8) -> list[Refs]:
    plan = EpochPlan(ShardSizes(COUNTS, COUNTS * 5), OrderOptions(0, batch, lanes=2, window_bytes=200), 0)
    return [plan.step(step) for step in range(plan.num_steps)]


@pytest.mark.parametrize("ahead_bytes", [1, 500, 100_000])
@pytest.mark.parametrize("kept", [0, 3])
def test_batches_come_as_they_are(ahead_bytes: int, kept: int) -> None:
    batches = make_batches()
    assert list(look_ahead(batches, Reader(ahead_bytes), kept=kept)) == batches  # type: ignore[arg-type]


def test_local_reader_is_told_nothing() -> None:
    reader = Reader(0)
    assert len(list(look_ahead(make_batches(), reader, kept=3))) == len(make_batches())  # type: ignore[arg-type]
    assert not reader.announced


@pytest.mark.parametrize("kept", [0, 3])
def test_what_is_announced_holds_every_shard_of_this_batch_and_of_those_just_read(kept: int) -> None:
    reader, read = Reader(800), []
    for refs in look_ahead(make_batches(), reader, kept=kept):  # type: ignore[arg-type]
        read.append(refs)
        needed = {shard for batch in read[-kept - 1 :] for shard in batch.shards.tolist()}
        assert needed <= set(reader.announced[-1])


def test_shards_are_announced_in_the_order_in_which_they_are_first_needed() -> None:
    reader = Reader(100_000)
    batches = make_batches()
    next(look_ahead(batches, reader, kept=0))  # type: ignore[arg-type]
    first_need = dict.fromkeys(shard for refs in batches for shard in refs.shards.tolist())
    assert reader.announced == [list(first_need)]


def test_no_more_is_announced_than_may_be_fetched_and_a_batch_needs() -> None:
    reader = Reader(600)
    for refs in look_ahead(make_batches(), reader, kept=0):  # type: ignore[arg-type]
        last_needs = len(set(refs.shards.tolist()))
        assert len(reader.announced[-1]) <= 6 + last_needs + 4  # what one further batch may add


def test_shard_that_no_coming_batch_needs_is_let_go() -> None:
    reader, batches = Reader(600), make_batches()
    taken = list(look_ahead(batches, reader, kept=0))  # type: ignore[arg-type]
    assert len(taken) == len(batches)
    assert len(reader.announced) > 10
    assert set(reader.announced[-1]) <= {shard for refs in batches[-30:] for shard in refs.shards.tolist()}


def test_looking_ahead_is_bounded_in_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much may be fetched: places of coming samples are held in memory."""
    monkeypatch.setattr(ahead, "_SAMPLES", 24)
    pulled = 0

    def coming() -> object:
        nonlocal pulled
        for refs in make_batches():
            pulled += len(refs)
            yield refs

    next(look_ahead(coming(), Reader(100_000), kept=0))  # type: ignore[arg-type]
    assert pulled == 24
