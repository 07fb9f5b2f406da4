"""The ledger of a run whose earlier ranks go on unseen for a while: it has what led to the weights, and no more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.feed.feed import Batch
from trainer.record.ledger import Ledger, choose_parts, drop_after, number_start, read_ledger


def make_batch(ids: list[int]) -> Batch:
    number = len(ids)
    images, weights = torch.zeros(number, 3, 2, 2, dtype=torch.uint8), torch.ones(number)
    return Batch(images, torch.zeros(number, dtype=torch.int64), weights, np.array(ids), [""] * number)


def take_step(ledger: Ledger, rank: int, position: int) -> None:
    """Two ranks see the samples position to position + 3, two each."""
    ledger.add(make_batch([position + 2 * rank, position + 2 * rank + 1]), 0, position // 4, position)


def read_samples(folder: Path) -> list[int]:
    return sorted(read_ledger(folder)["sample_id"].to_pylist())


def test_rows_of_a_rank_that_was_cut_off_and_writes_after_the_next_start_do_not_count(tmp_path: Path) -> None:
    start = number_start(tmp_path)
    both = [Ledger(tmp_path, rank, 0, 0, start) for rank in range(2)]
    for position in (0, 4):
        for rank, ledger in enumerate(both):
            take_step(ledger, rank, position)
            if position == 0:
                ledger.flush(4)
    both[0].flush(8)  # the snapshot at 8 was never taken: rank 1 is cut off
    drop_after(tmp_path, 4)
    alone = Ledger(tmp_path, 0, 4, 8, number_start(tmp_path))
    alone.add(make_batch([4, 5, 6, 7]), 0, 1, 4)
    alone.flush(8)
    both[1].flush(8)  # its cable is plugged in again
    assert len(list(tmp_path.glob("rank-*.parquet"))) == 4
    assert read_samples(tmp_path) == list(range(8))
    assert read_ledger(tmp_path)["rank"].to_pylist() == [0, 0, 1, 1, 0, 0, 0, 0]


def test_starts_are_numbered_upwards_even_where_the_clock_goes_back(tmp_path: Path) -> None:
    first = number_start(tmp_path)
    future = first + 10**9
    (tmp_path / f"rank-0000-000000000000000-000000000000004-{future}.parquet").touch()
    assert number_start(tmp_path) == future + 1


NAME = "rank-{}-{:015d}-{:015d}{}.parquet"


@pytest.mark.parametrize(
    ("parts", "kept"),
    [
        ([(0, 0, 4, ""), (0, 4, 8, "")], [0, 1]),  # of a run before starts were numbered
        ([(0, 0, 4, ""), (0, 4, 8, "-9"), (1, 4, 8, "")], [0, 1]),
        ([(0, 0, 8, "-1"), (0, 4, 8, "-2"), (0, 8, 12, "-3"), (0, 4, 12, "-1")], [1, 2]),  # 0 to 8 reaches beyond 4
        ([(0, 0, 4, "-1"), (1, 0, 4, "-1"), (0, 4, 8, "-2"), (1, 4, 8, "-2"), (2, 4, 8, "-2")], [0, 1, 2, 3, 4]),
    ],
)
def test_newest_start_counts_from_where_it_began(parts: list[tuple[int, int, int, str]], kept: list[int]) -> None:
    names = [NAME.format(*part) for part in parts]
    assert choose_parts([*names, "position", "rank-x.parquet"]) == sorted(names[place] for place in kept)
