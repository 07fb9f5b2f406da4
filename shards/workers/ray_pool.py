"""Many tasks as Ray tasks, on the cluster of RAY_ADDRESS or on one started here."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from shards.workers.ray_cluster import join_or_start  # isort: skip, it quiets Ray

import ray
from ray.exceptions import RayTaskError, WorkerCrashedError

from shards.errors import UsageError

Task = TypeVar("Task")
Result = TypeVar("Result")

MAX_RETRIES = 3
"""Retries of a task whose node or process was lost; a task that raises is not retried."""


class RayPool:
    """Runs a bounded number of one-CPU tasks at a time; every node must see the sources and the target."""

    def __init__(self, tasks_at_a_time: int) -> None:
        self._limit = tasks_at_a_time

    def run(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield the results in the order of the tasks; the first exception of a task is raised here."""
        shared = ray.put(function)
        waiting: deque[Any] = deque()
        try:
            for task in tasks:
                waiting.append(_call.remote(shared, task))
                if len(waiting) > self._limit:
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())
        finally:
            for reference in waiting:
                ray.cancel(reference)


@contextlib.contextmanager
def open_ray_pool(workers: int | None) -> Iterator[RayPool]:
    """Yield a pool; None means as many tasks at a time as the cluster has CPUs.

    Raises:
        ConnectionError: The cluster named by RAY_ADDRESS does not answer.
    """
    started = join_or_start(log_to_driver=False)
    try:
        yield RayPool(workers or max(1, int(ray.cluster_resources().get("CPU", 1))))
    finally:
        if started:
            ray.shutdown()


@ray.remote(num_cpus=1, max_retries=MAX_RETRIES)
def _call(function: Callable[[Task], Result], task: Task) -> Result:
    return function(task)


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as err:
        raise err.cause from None  # our error, without Ray's traceback around it
    except WorkerCrashedError as err:
        raise UsageError(
            f"a Ray task was lost {MAX_RETRIES + 1} times, most likely because memory ran out; give fewer --workers "
            "or smaller --shard-bytes, and run the command again: it resumes from here"
        ) from err
