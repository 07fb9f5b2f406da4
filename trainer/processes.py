"""All ranks of one machine as processes, without Ray."""

from __future__ import annotations

import logging
import signal
import tempfile
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.multiprocessing

from shards.errors import ShardError, UsageError
from trainer.ranks import Ranks, join_ranks, single_rank

Result = TypeVar("Result")


def run_processes(function: Callable[..., Result], arguments: tuple[Any, ...], num_ranks: int) -> Result:
    """Return what `function(ranks, *arguments)` gives on rank 0; one rank runs in this process.

    Raises:
        UsageError: As the function raised on some rank.
        ShardError: Likewise.
    """
    if num_ranks == 1:
        return function(single_rank(), *arguments)
    with tempfile.TemporaryDirectory(prefix="shardline-") as folder:
        results = torch.multiprocessing.get_context("spawn").SimpleQueue()
        try:
            torch.multiprocessing.spawn(
                _run_process, (num_ranks, f"{folder}/rendezvous", function, arguments, results), num_ranks
            )
        except torch.multiprocessing.ProcessRaisedException:
            if results.empty():
                raise
        result: Result | Exception = results.get()
    if isinstance(result, Exception):
        raise result
    return result


def _run_process(
    rank: int,
    num_ranks: int,
    rendezvous: str,
    function: Callable[..., Result],
    arguments: tuple[Any, ...],
    results: Any,
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent decides what follows
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    ranks: Ranks = join_ranks(rank, num_ranks, rendezvous)
    try:
        result = function(ranks, *arguments)
        if ranks.is_first:
            results.put(result)
    except (UsageError, ShardError) as err:
        results.put(err)  # the sentence for the user; raising ends the other ranks, which wait in a collective
        raise
    finally:
        torch.distributed.destroy_process_group()
