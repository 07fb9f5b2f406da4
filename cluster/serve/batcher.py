"""Gathers prepared pictures into batches for the model.

A batch starts when it is full, when no other picture is being decoded that could join it, or when its first picture
has waited long enough. `ray.serve.batch` knows nothing of decoding: it makes a lone picture wait, and starts small
batches while the next pictures are nearly there. It also costs half a millisecond of the event loop per picture.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import NamedTuple

from cluster.serve.compute import Job, Result


class _Waiting(NamedTuple):
    job: Job
    since: float
    result: asyncio.Future[Result]


class Batcher:
    """Batches of one model, one at a time; belongs to one event loop.

    Args:
        compute: Returns a result for each job; called in `executor`, so that the event loop goes on.
        executor: Where the model computes.
        max_size: Most pictures in a batch.
        wait_s: Seconds that the first picture of a batch waits for those that are being decoded.
        count: Is told the size of each batch.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Job]], list[Result]],
        executor: Executor,
        max_size: int,
        wait_s: float,
        count: Callable[[int], None] = lambda _size: None,
    ) -> None:
        self._compute, self._executor, self._count = compute, executor, count
        self._max_size, self._wait_s = max_size, wait_s
        self._queue: deque[_Waiting] = deque()
        self._coming = 0
        self._changed = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None

    def limit(self, max_size: int, wait_s: float) -> None:
        """Set the size of the batches and their wait from now on."""
        self._max_size, self._wait_s = max_size, wait_s

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Count a picture as one that may join a batch soon, while the block runs."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1
            self._changed.set()

    async def submit(self, job: Job) -> Result:
        """Return the result of a job; one whose caller is cancelled is dropped from its batch."""
        waiting = _Waiting(job, time.monotonic(), asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._changed.set()
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        try:
            return await waiting.result
        except asyncio.CancelledError:
            job.has_left = True
            raise

    async def _run(self) -> None:
        """Compute batches as long as pictures wait."""
        while self._queue:
            await self._gather()
            batch = [self._queue.popleft() for _ in range(min(self._max_size, len(self._queue)))]
            await self._answer([each for each in batch if not each.job.has_left])

    async def _gather(self) -> None:
        """Return when a batch should start."""
        until = self._queue[0].since + self._wait_s
        while len(self._queue) < self._max_size and self._coming and (left := until - time.monotonic()) > 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                return

    async def _answer(self, batch: list[_Waiting]) -> None:
        if not batch:
            return
        jobs = [each.job for each in batch]
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._executor, self._compute, jobs)
        except Exception as err:  # one fault must not end the batches of all others
            results = [Result(err, 0.0)] * len(batch)
        self._count(len(batch))
        for each, result in zip(batch, results, strict=True):
            if not each.result.done():
                each.result.set_result(result)
