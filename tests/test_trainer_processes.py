"""Ranks as processes: how they end. What they compute is in test_trainer_ranks.py."""

from __future__ import annotations

import pytest

from shards.errors import ShardError, UsageError
from trainer.processes import run_processes
from trainer.ranks import Ranks


def refuse_on_second_rank(ranks: Ranks, folder: str) -> None:
    if ranks.rank == 1:
        raise ShardError(f"rank 1 refused {folder}")
    ranks.barrier()  # it would wait here for ever, were it not ended


def test_refusal_of_one_rank_ends_the_others_and_reaches_the_caller() -> None:
    with pytest.raises(ShardError, match=r"^rank 1 refused /data$"):
        run_processes(refuse_on_second_rank, ("/data",), 2)


def test_no_ranks_at_all_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^num_ranks is a number of processes and must be at least 1, got 0$"):
        run_processes(refuse_on_second_rank, ("/data",), 0)
