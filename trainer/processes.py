"""All ranks of one machine as processes, without Ray."""

from __future__ import annotations

import logging
import pickle
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.multiprocessing.spawn import ProcessRaisedException, spawn

from shards.errors import ShardError, UsageError
from shards.files import write_atomically
from trainer.ranks import Ranks, join_ranks, single_rank

Result = TypeVar("Result")

# Files, not a queue: a large result would fill the queue's pipe before anybody reads it.
_RESULT, _REFUSAL = "result", "refusal"


def run_processes(function: Callable[..., Result], arguments: tuple[Any, ...], num_ranks: int) -> Result:
    """Return what `function(ranks, *arguments)` gives on rank 0; one rank runs in this process.

    Raises:
        UsageError: As the function raised on some rank.
        ShardError: Likewise.
    """
    if num_ranks < 1:
        raise UsageError(f"num_ranks is a number of processes and must be at least 1, got {num_ranks}")
    if num_ranks == 1:
        return function(single_rank(), *arguments)
    with tempfile.TemporaryDirectory(prefix="shardline-") as name:
        folder = Path(name)
        try:
            spawn(_run_process, (num_ranks, folder, function, arguments), num_ranks)
        except ProcessRaisedException:
            if not (folder / _REFUSAL).is_file():
                raise
            refusal: Exception = pickle.loads((folder / _REFUSAL).read_bytes())
            raise refusal from None
        result: Result = pickle.loads((folder / _RESULT).read_bytes())
        return result


def _run_process(
    rank: int, num_ranks: int, folder: Path, function: Callable[..., Result], arguments: tuple[Any, ...]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent decides what follows
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    ranks: Ranks = join_ranks(rank, num_ranks, str(folder / "rendezvous"))
    try:
        result = function(ranks, *arguments)
        if ranks.is_first:
            _put(folder / _RESULT, result)
    except (UsageError, ShardError) as err:
        _put(folder / _REFUSAL, err)
        raise  # this ends the other ranks, which wait in a collective
    finally:
        torch.distributed.destroy_process_group()


def _put(path: Path, value: object) -> None:
    with write_atomically(path) as file:
        pickle.dump(value, file)
