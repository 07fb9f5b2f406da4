"""A bar with pictures per second, megabytes per second and the time left."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from tqdm import tqdm

from shards.audit.examine import Progress


@contextlib.contextmanager
def show_progress() -> Iterator[Progress]:
    """Yield a function that draws a bar for each stage on stderr; nothing is drawn where stderr is no terminal."""
    bars: dict[str, _Stage] = {}

    def show(stage: str, done: int, total: int, size: int) -> None:
        if stage not in bars:
            bars[stage] = _Stage(stage, total)
        bars[stage].show(done, size)

    try:
        yield show
    finally:
        for bar in bars.values():
            bar.close()


class _Stage:
    def __init__(self, name: str, total: int) -> None:
        self._bar = tqdm(desc=name, total=total, unit="picture", disable=None, leave=False)
        self._began, self._bytes = time.monotonic(), 0

    def show(self, done: int, size: int) -> None:
        self._bytes += size
        rate = self._bytes / 1e6 / max(1e-9, time.monotonic() - self._began)
        self._bar.set_postfix_str(f"{rate:.1f} MB/s", refresh=False)
        self._bar.update(done - self._bar.n)
        if done == self._bar.total:
            self.close()

    def close(self) -> None:
        self._bar.close()
