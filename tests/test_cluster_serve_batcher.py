"""Batches start when they are full, when nothing more is coming, or when their first picture has waited long enough."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
import torch

from cluster.serve.batcher import Batcher
from cluster.serve.compute import Job, Result

EXECUTOR = ThreadPoolExecutor(1)


def job(number: int) -> Job:
    return Job(torch.tensor([number]), cast(Any, None))


def double(jobs: Sequence[Job]) -> list[Result]:
    return [Result(cast(Any, int(each.image) * 2), 0.0) for each in jobs]


def collect(batcher: Batcher, numbers: Sequence[int]) -> list[Any]:
    async def submit_all() -> list[Any]:
        return [result.output for result in await asyncio.gather(*(batcher.submit(job(each)) for each in numbers))]

    return asyncio.run(submit_all())


def test_results_belong_to_their_jobs_in_batches_of_at_most_the_size() -> None:
    sizes: list[int] = []
    batcher = Batcher(double, EXECUTOR, 4, 10, sizes.append)
    assert collect(batcher, range(11)) == [2 * each for each in range(11)]
    assert sizes == [4, 4, 3]


def test_a_lone_picture_does_not_wait() -> None:
    began = time.monotonic()
    assert collect(Batcher(double, EXECUTOR, 4, 60), [7]) == [14]
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("is_refused", [False, True])
def test_a_batch_waits_for_a_picture_that_is_being_decoded(is_refused: bool) -> None:
    sizes: list[int] = []

    async def run() -> None:
        batcher = Batcher(double, EXECUTOR, 4, 60, sizes.append)

        async def decode_slowly() -> None:
            with batcher.announced():
                await asyncio.sleep(0.1)
            if not is_refused:
                await batcher.submit(job(2))

        await asyncio.gather(batcher.submit(job(1)), decode_slowly())

    asyncio.run(run())
    assert sizes == ([1] if is_refused else [2])


def test_a_batch_does_not_wait_longer_than_it_may() -> None:
    sizes: list[int] = []

    async def run() -> None:
        batcher = Batcher(double, EXECUTOR, 4, 0.05, sizes.append)
        with batcher.announced():  # never comes
            await batcher.submit(job(1))

    asyncio.run(run())
    assert sizes == [1]


def test_pictures_of_clients_that_left_are_not_computed() -> None:
    computed: list[int] = []
    started, go_on = threading.Event(), threading.Event()

    def record(jobs: Sequence[Job]) -> list[Result]:
        computed.extend(int(each.image) for each in jobs)
        started.set()
        go_on.wait(30)
        return double(jobs)

    async def run() -> None:
        batcher = Batcher(record, EXECUTOR, 4, 10)
        first = asyncio.create_task(batcher.submit(job(1)))
        await asyncio.to_thread(started.wait, 30)
        leaving, staying = (asyncio.create_task(batcher.submit(job(number))) for number in (2, 3))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.sleep(0)
        go_on.set()
        assert [(await each).output for each in (first, staying)] == [2, 6]

    asyncio.run(run())
    assert computed == [1, 3]


def test_a_fault_of_one_batch_does_not_end_the_next() -> None:
    def fail_on_three(jobs: Sequence[Job]) -> list[Result]:
        if any(int(each.image) == 3 for each in jobs):
            raise RuntimeError("three")
        return double(jobs)

    batcher = Batcher(fail_on_three, EXECUTOR, 1, 10)
    one, three, five = collect(batcher, [1, 3, 5])
    assert (one, five) == (2, 10)
    assert str(three) == "three"
