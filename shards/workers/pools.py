"""Many tasks over several processes of this machine; results come in the order of the tasks."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import ModuleType
from typing import Any, Final, Protocol, TypeVar

from shards.errors import UsageError

Task = TypeVar("Task")
Result = TypeVar("Result")


_INTERRUPTS: Final = {signal.SIGINT, signal.SIGTERM}


class Pool(Protocol):
    """Runs a picklable function over tasks, a bounded number at a time."""

    def run(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield the results in the order of the tasks; the first exception of a task is raised here."""
        ...


class InlinePool:
    """Runs tasks in this process: nothing to start or pickle."""

    def run(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        return map(function, tasks)


class ProcessPool:
    """Worker processes of this machine. They end with this process, even when it is killed."""

    def __init__(self, workers: int) -> None:
        # forkserver: a forked child would inherit locks held by threads of pyarrow and of the progress bar.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["shards.packing.write", "shards.audit.examine"])
        self._workers = workers
        self._others = set(multiprocessing.active_children())
        self._executor = ProcessPoolExecutor(workers, context, initializer=_start_worker)

    def run(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        waiting: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                with _no_interrupt(), without_main():
                    waiting.append(self._executor.submit(function, task))
                if len(waiting) > 2 * self._workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as err:
            raise UsageError(
                "a worker process was killed, most likely because memory ran out; give fewer --workers or smaller "
                "--shard-bytes, and run the command again: it resumes from here"
            ) from err

    def close(self) -> None:
        """Wait until all workers have ended; every task must be done."""
        self._executor.shutdown()

    def kill(self) -> None:
        """Kill the workers at once. Tasks may take minutes and leave nothing half-written when killed.

        Cancelling the queue and waiting for running tasks sometimes hangs under Python 3.11: a worker never gets the
        message to end.
        """
        for process in set(multiprocessing.active_children()) - self._others:
            process.kill()
        self._executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def open_pool(workers: int) -> Iterator[Pool]:
    """Yield a pool on this machine; with one worker, tasks run in this process."""
    if workers == 1:
        yield InlinePool()
        return
    pool = ProcessPool(workers)
    try:
        yield pool
    except BaseException:
        pool.kill()
        raise
    pool.close()


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Keep processes that are started in the block from running this process's main module.

    Python would run it again in each of them, for functions defined there. Our functions never are; and the main module
    may be a user's script, which would pack and train again in each process, or standard input, which cannot be reread.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Delay Ctrl-C: interrupting a submit would leave a worker half started, which could not be ended afterwards.

    The signal mask is for processes started in the block. It does not delay the signal in this process: another thread
    (a progress bar's or pyarrow's) receives it, and Python still runs the handler in the main thread. Hence the
    handlers are replaced as well. Threads other than the main one are not interrupted.
    """
    came: list[int] = []
    handlers = _put_off(came) if threading.current_thread() is threading.main_thread() else {}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for caught in came:
            signal.raise_signal(caught)


def _put_off(came: list[int]) -> dict[signal.Signals, Any]:
    """Make interrupts only append to `came`; return the replaced handlers, without those installed by C code."""
    handlers = {number: signal.getsignal(number) for number in _INTERRUPTS}
    known = {number: handler for number, handler in handlers.items() if handler is not None}
    for number in known:
        signal.signal(number, lambda caught, _: came.append(caught))
    return known


def _start_worker() -> None:
    """Ignore Ctrl-C, which the parent handles, and end with the parent instead of waiting for tasks forever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # a worker inherits the mask of the moment it started
    end_with_parent()


def end_with_parent() -> None:
    """End this process, started by Python's multiprocessing, as soon as its parent is gone, even by SIGKILL."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, name="end-with-parent", daemon=True).start()
