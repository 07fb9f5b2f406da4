"""Many tasks over several processes of this machine, results in the order of the tasks."""

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
    """Runs a picklable function over tasks, a bounded number of them at a time."""

    def run(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield the results in the order of the tasks; the first exception of a task is raised here."""
        ...


class InlinePool:
    """This process alone: nothing to start, nothing to pickle."""

    def run(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        return map(function, tasks)


class ProcessPool:
    """Worker processes of this machine. They end with this process, even when it is killed."""

    def __init__(self, workers: int) -> None:
        # forkserver: a fork of this process would copy the threads' locks of pyarrow and of the progress bar.
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
                "a worker process was killed, most likely because memory ran out; "
                "give fewer --workers or smaller --shard-bytes, and run the command again: it goes on from here"
            ) from err

    def close(self) -> None:
        """Return when all workers have ended by themselves; every task must be done."""
        self._executor.shutdown()

    def kill(self) -> None:
        """End the workers at once: a task may take minutes, and leaves nothing half-written.

        To cancel what waits and let the rest finish hangs now and then under Python 3.11: a worker is left without
        the message that ends it.
        """
        for process in set(multiprocessing.active_children()) - self._others:
            process.kill()
        self._executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def open_pool(workers: int) -> Iterator[Pool]:
    """Yield a pool of this machine; one worker is this process itself."""
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
    """Have processes that are started in the block leave this one's main module alone.

    Python has them run it again, for functions that it may define. Ours need none of it, and it may be somebody's
    script, which would pack and train once more in each of them, or standard input, which nobody can read twice.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Put off Ctrl-C: a submit that it cuts short leaves a worker half started, and nobody could end it any more.

    The mask is for processes that are started meanwhile. It does not hold the signal off: any other thread takes it,
    a progress bar's or pyarrow's, and Python runs its handler in the main thread all the same. Other threads are not
    interrupted.
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
    """Let interrupts do no more than stand in `came`; return the handlers that they had, but for those of C code."""
    handlers = {number: signal.getsignal(number) for number in _INTERRUPTS}
    known = {number: handler for number, handler in handlers.items() if handler is not None}
    for number in known:
        signal.signal(number, lambda caught, _: came.append(caught))
    return known


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end when it is gone: a worker would wait for tasks for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # a worker inherits what was blocked while it started
    end_with_parent()


def end_with_parent() -> None:
    """End this process, of Python's multiprocessing, as soon as the one that started it is gone, even by SIGKILL."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, name="end-with-parent", daemon=True).start()
