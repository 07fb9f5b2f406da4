"""Calls that may hang, such as those to a lost file server, within a limit of time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from shards.files.disk import DiskError

R = TypeVar("R")


class Slow:
    """Stands for the result of a call that has not ended in time."""


def run_all(calls: Mapping[str, Callable[[], R]], limit_s: float) -> dict[str, R | Exception | Slow]:
    """Return the result or the error of each call, all made at once, or Slow for those that take longer than the limit.

    A thread that hangs is left behind; it does not keep the process alive.

    >>> run_all({"sum": lambda: 1 + 1}, limit_s=5)
    {'sum': 2}
    """
    ended: dict[str, Any] = {}
    done = threading.Semaphore(0)

    def run(name: str, call: Callable[[], R]) -> None:
        try:
            ended[name] = call()
        except Exception as err:
            ended[name] = err
        done.release()

    for name, call in calls.items():
        threading.Thread(target=run, args=(name, call), daemon=True).start()
    _await_all(done, len(calls), limit_s)
    return {name: ended.get(name, Slow()) for name in calls}


def _await_all(done: threading.Semaphore, count: int, limit_s: float) -> None:
    until = time.monotonic() + limit_s
    for _ in range(count):
        if not done.acquire(timeout=max(0.0, until - time.monotonic())):
            return


def explain(err: BaseException) -> str:
    """Return an error as text on one line.

    >>> explain(PermissionError(13, "Permission denied", "/mnt/runs"))
    'Permission denied: /mnt/runs'
    """
    if isinstance(err, OSError) and err.strerror and not isinstance(err, DiskError):
        return f"{err.strerror}: {err.filename}" if err.filename else str(err.strerror)
    lines = [line for line in str(err).splitlines() if line.strip()]
    return (lines[0].strip() if lines else "") or type(err).__name__
