"""Ranks as processes: how they end. What they compute is in test_trainer_ranks.py."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from shards.errors import ShardError, UsageError
from trainer.ranks.processes import run_processes
from trainer.ranks.ranks import Ranks


def refuse_on_second_rank(ranks: Ranks, folder: str) -> None:
    """What both log before: a note that the first alone says, and a warning that says the same of both."""
    logging.getLogger("trainer.somewhere").info("a note of rank %d", ranks.rank)
    logging.getLogger("trainer.somewhere").warning("a warning about %s", folder)
    ranks.barrier()
    if ranks.rank == 1:
        raise ShardError(f"rank 1 refused {folder}")
    ranks.barrier()  # it would wait here for ever, were it not ended


def test_refusal_of_one_rank_ends_the_others_and_reaches_the_caller_after_what_they_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "trainer")
    with pytest.raises(ShardError, match=r"^rank 1 refused /data$"):
        run_processes(refuse_on_second_rank, ("/data",), 2)
    assert sorted(caplog.messages) == ["a note of rank 0", "a warning about /data"]


def test_no_ranks_at_all_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^num_ranks is a number of processes and must be at least 1, got 0$"):
        run_processes(refuse_on_second_rank, ("/data",), 0)


def write_pid_and_wait(ranks: Ranks, folder: Path) -> None:
    (folder / str(ranks.rank)).write_text(str(os.getpid()))
    time.sleep(600)


def test_no_rank_survives_ctrl_c(tmp_path: Path) -> None:
    def press() -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_processes(write_pid_and_wait, (tmp_path,), 2)
    for path in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)
