"""All ranks of one machine as processes, without Ray."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

from shards.errors import ShardError, UsageError
from shards.files import write_atomically
from shards.pools import end_with_parent
from trainer.ranks import Ranks, join_ranks, single_rank

Result = TypeVar("Result")

# Files, not a queue: a large result would fill the queue's pipe before anybody reads it.
_RESULT, _REFUSAL = "result", "refusal"


def run_processes(function: Callable[..., Result], arguments: tuple[Any, ...], num_ranks: int) -> Result:
    """Return what `function(ranks, *arguments)` gives on rank 0; one rank runs in this process.

    Raises:
        UsageError: As the function raised on some rank.
        ShardError: Likewise.
        OSError: Likewise; a store that does not answer, a full disk.
        KeyboardInterrupt: Ctrl-C; no rank runs any more.
    """
    if num_ranks < 1:
        raise UsageError(f"num_ranks is a number of processes and must be at least 1, got {num_ranks}")
    if num_ranks == 1:
        return function(single_rank(), *arguments)
    with tempfile.TemporaryDirectory(prefix="shardline-") as name:
        folder = Path(name)
        # forkserver: ranks are forks of one process that has imported all this once, before any thread or device.
        multiprocessing.set_forkserver_preload(["trainer.job"])
        try:
            _run_all((num_ranks, folder, function, arguments), num_ranks)
        except ProcessRaisedException:
            if not (folder / _REFUSAL).is_file():
                raise
            refusal: Exception = pickle.loads((folder / _REFUSAL).read_bytes())
            raise refusal from None
        except ProcessExitedException as err:
            raise UsageError(
                f"rank {err.error_index} of {num_ranks} was ended from outside ({err.signal_name or err.exit_code}), "
                "most likely because memory ran out; give fewer num_ranks or a smaller batch, and run the command "
                "again: it goes on from its last snapshot"
            ) from err
        result: Result = pickle.loads((folder / _RESULT).read_bytes())
        return result


def _run_all(arguments: tuple[Any, ...], num_ranks: int) -> None:
    """Return when all ranks have ended, whatever ends this."""
    # daemon: Python would wait for the others at its end.
    started = start_processes(_run_process, arguments, num_ranks, join=False, daemon=True, start_method="forkserver")
    assert started is not None  # without join there is something to join
    try:
        while not started.join():
            pass
    finally:
        for process in started.processes:
            process.kill()
            process.join()


def _run_process(
    rank: int, num_ranks: int, folder: Path, function: Callable[..., Result], arguments: tuple[Any, ...]
) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent decides what follows
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    ranks: Ranks = join_ranks(rank, num_ranks, str(folder / "rendezvous"))
    try:
        result = function(ranks, *arguments)
        if ranks.is_first:
            _put(folder / _RESULT, result)
    except (UsageError, ShardError, OSError) as err:
        _put(folder / _REFUSAL, err)
        raise  # this ends the other ranks, which wait in a collective
    finally:
        torch.distributed.destroy_process_group()


def _put(path: Path, value: object) -> None:
    with write_atomically(path) as file:
        pickle.dump(value, file)
