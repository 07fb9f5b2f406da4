"""A job until its end: its log as it grows, and the exit code of its command."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from shards.cli.ending import DONE, INTERRUPTED, MISTAKE
from shards.errors import Interrupted

if TYPE_CHECKING:
    from cluster.jobs.head import Head, Job

POLL_S = 0.5
AWAY_S = 120.0
"""Seconds for which the head may be away: one that is restarted keeps its jobs."""


def follow(head: Head, name: str, write: Callable[[str], None] | None = None) -> Job:
    """Return the job when it has ended; give what it prints to `write` meanwhile.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the job continues.
        ConnectionError: The head has been away for AWAY_S.
        UsageError: There is no such job.
    """
    rest = _Rest(write) if write else None
    seen_s = time.monotonic()
    try:
        while True:
            try:
                job = head.read(name)
                seen_s = time.monotonic()
                if rest is not None and job.status != "PENDING":  # it has no log before
                    asyncio.run(_tail(head, name, rest))
                    job = head.read(name)
                if job.has_ended:
                    return job
            except ConnectionError:
                if time.monotonic() - seen_s > AWAY_S:
                    raise
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        raise Interrupted(
            f"the job {name} continues without this command: `python -m cluster.jobs {name} --follow` shows it again, "
            f"`python -m cluster.stop {name}` stops it"
        ) from None


class _Rest:
    """Passes on what was not written before: after a lost connection, a log comes from its beginning again."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self._written, self._come = write, 0, 0

    def begin(self) -> None:
        self._come = 0

    def take(self, text: str) -> None:
        new = text[max(self._written - self._come, 0) :]
        self._come += len(text)
        self._written = max(self._written, self._come)
        if new:
            self._write(new)


async def _tail(head: Head, name: str, rest: _Rest) -> None:
    rest.begin()
    async for text in head.tail(name):
        rest.take(text)


def read_exit_code(job: Job) -> int:
    """Return the exit code that the job's command had, as if it had run here; 130 if it was stopped.

    A job that ended without one never started, or was lost with its node: the machine's fault, as a full disk is.
    """
    if job.status == "SUCCEEDED":
        return DONE
    if job.status == "STOPPED":
        return INTERRUPTED
    if job.exit_code is None:
        return MISTAKE
    return job.exit_code if job.exit_code >= 0 else 128 - job.exit_code
