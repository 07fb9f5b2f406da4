"""Run all ranks of one machine as processes, without Ray."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import pickle
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO, TypeVar

import torch
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

from shards.cli.arguments import check_count
from shards.cli.messages import Replay, handing_on, read_level
from shards.errors import ShardError, UsageError
from shards.files.atomic import write_atomically
from shards.workers.pools import end_with_parent, without_main
from trainer.ranks.ranks import Ranks, join_ranks, single_rank
from trainer.ranks.watching import watching

Result = TypeVar("Result")

# Files, not a queue: a large result would fill the queue's pipe before it is read.
_RESULT, _REFUSAL, _MESSAGES = "result", "refusal", "messages"
_READ_EVERY_S = 0.2


def run_processes(function: Callable[..., Result], arguments: tuple[Any, ...], num_ranks: int) -> Result:
    """Return the result of `function(ranks, *arguments)` on rank 0; a single rank runs in this process.

    Log records of rank 0 and warnings of the other ranks are logged in this process.

    Raises:
        UsageError: Raised by the function on some rank.
        ShardError: Raised by the function on some rank.
        OSError: Raised by the function on some rank: a store does not respond, the disk is full.
        KeyboardInterrupt: Ctrl-C; all ranks have ended.
    """
    check_count("num_ranks", num_ranks, of="processes")
    if num_ranks == 1:
        return function(single_rank(), *arguments)
    with tempfile.TemporaryDirectory(prefix="shardline-") as name:
        folder = Path(name)
        # forkserver: ranks are forks of one process that has imported everything once, before any thread or device
        # exists.
        multiprocessing.set_forkserver_preload(["trainer.run.job"])
        try:
            with _replaying(folder):
                _run_all((num_ranks, folder, read_level(), function, arguments), num_ranks)
        except ProcessRaisedException:
            if not (folder / _REFUSAL).is_file():
                raise
            refusal: Exception = pickle.loads((folder / _REFUSAL).read_bytes())  # noqa: S301, by our own rank
            raise refusal from None
        except ProcessExitedException as err:
            raise UsageError(
                f"rank {err.error_index} of {num_ranks} was killed ({err.signal_name or err.exit_code}), "
                "most likely because memory ran out; set fewer num_ranks or a smaller batch, and run the command "
                "again: it resumes from its last snapshot"
            ) from err
        result: Result = pickle.loads((folder / _RESULT).read_bytes())  # noqa: S301, by our own rank
        return result


def _run_all(arguments: tuple[Any, ...], num_ranks: int) -> None:
    """Run all ranks; all have ended on return, also after an error."""
    # torch warns about each rank that it ends; our own error gives the reason.
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    # daemon: otherwise Python would wait for the other ranks on exit.
    with without_main():
        started = start_processes(
            _run_process, arguments, num_ranks, join=False, daemon=True, start_method="forkserver"
        )
    assert started is not None  # always set with join=False
    try:
        while not started.join():
            pass
    finally:
        for process in started.processes:
            process.kill()
            process.join()


@contextlib.contextmanager
def _replaying(folder: Path) -> Iterator[None]:
    """Log the records of the ranks in this process while the block runs."""
    replay, read = Replay(), dict[Path, int]()

    def look() -> None:
        for path in sorted(folder.glob(f"{_MESSAGES}-*")):
            with open(path, "rb") as file:
                file.seek(read.get(path, 0))
                for line in file:
                    if line.endswith(b"\n"):  # the rest of the line is not written yet
                        read[path] = read.get(path, 0) + len(line)
                        replay(line.decode())

    try:
        with watching(look, "messages", _READ_EVERY_S):
            yield
    finally:
        look()


def _run_process(
    rank: int, num_ranks: int, folder: Path, level: int, function: Callable[..., Result], arguments: tuple[Any, ...]
) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal signals all processes; the parent handles it
    if rank:
        level = max(level, logging.WARNING)
        logging.getLogger().addHandler(logging.NullHandler())  # rank 0 logs warnings of other libraries
    with (
        open(folder / f"{_MESSAGES}-{rank}", "a", buffering=1, encoding="utf-8") as file,
        handing_on(lambda line: _write_line(file, line), level),
    ):
        _join_and_run(rank, num_ranks, folder, function, arguments)


def _write_line(file: TextIO, line: str) -> None:
    file.write(f"{line}\n")


def _join_and_run(
    rank: int, num_ranks: int, folder: Path, function: Callable[..., Result], arguments: tuple[Any, ...]
) -> None:
    ranks: Ranks = join_ranks(rank, num_ranks, str(folder / "rendezvous"))
    try:
        result = function(ranks, *arguments)
        if ranks.is_first:
            _put(folder / _RESULT, result)
    except (UsageError, ShardError, OSError) as err:
        _put(folder / _REFUSAL, err)
        raise  # ends the other ranks, which are waiting in a collective
    finally:
        torch.distributed.destroy_process_group()


def _put(path: Path, value: object) -> None:
    with write_atomically(path) as file:
        pickle.dump(value, file)
