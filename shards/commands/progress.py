"""A progress bar, or a line a minute, for each stage of packing: pictures, megabytes per second and the time left."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from shards.audit.examine import Progress
from shards.cli import progress


@contextlib.contextmanager
def show_progress() -> Iterator[Progress]:
    """Yield a function that shows the progress of each stage on stderr."""
    stages: dict[str, _Stage] = {}

    def show(stage: str, done: int, total: int, size: int) -> None:
        if stage not in stages:
            stages[stage] = _Stage(stage, total)
        stages[stage].show(done, size)

    try:
        yield show
    finally:
        for stage in stages.values():
            stage.close()


class _Stage:
    def __init__(self, name: str, total: int) -> None:
        self._progress, self._total = progress.Progress(name, total), total
        self._began, self._bytes = time.monotonic(), 0

    def show(self, done: int, size: int) -> None:
        self._bytes += size
        rate = self._bytes / 1e6 / max(1e-9, time.monotonic() - self._began)
        self._progress.show(done, f"{rate:.1f} MB/s")
        if done == self._total:
            self.close()

    def close(self) -> None:
        self._progress.close()
