"""Progress of a long command: a bar in a terminal or notebook, elsewhere a line a minute."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

from tqdm.auto import tqdm

from shards.cli.messages import shows_progress

LINE_EVERY_S = 60.0
"""Longest time between lines where there is no bar; a run also logs at this rate in a terminal."""

logger = logging.getLogger(__name__)

Clock = Callable[[], float]


def draw_bar(**options: object) -> tqdm[None]:
    """Return tqdm's bar, drawn in a terminal or a notebook unless --quiet is given; its `disable` is True if it is not
    drawn.
    """
    where = False if _is_notebook() else None  # None: draw if standard error is a terminal
    return tqdm(disable=where if shows_progress() else True, leave=False, **options)  # type: ignore[call-overload]


def _is_notebook() -> bool:
    """Return whether this process is a notebook's kernel: its standard error is no terminal but shows bars."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config


class Progress:
    """Progress of one stage, counted in pictures.

    Args:
        stage: Its name.
        total: Pictures in the stage; None if unknown.
        done: Pictures done by an earlier start.
        every_s: Seconds between lines.
        clock: Returns seconds.
    """

    def __init__(
        self,
        stage: str,
        total: int | None,
        done: int = 0,
        every_s: float = LINE_EVERY_S,
        clock: Clock = time.monotonic,
    ) -> None:
        self._stage, self._total, self._first, self._every_s, self._clock = stage, total, done, every_s, clock
        self._began = self._logged_at = clock()
        self._bar = draw_bar(desc=stage, total=total, initial=done, unit="picture")

    def show(self, done: int, more: str = "") -> None:
        """Show that `done` pictures are done, followed by the words `more`."""
        if not self._bar.disable:
            self._bar.set_postfix_str(more, refresh=False)
            self._bar.update(done - self._bar.n)
            return
        now = self._clock()
        if now - self._logged_at >= self._every_s:
            self._logged_at = now
            logger.info("%s", self._describe(done, more, now - self._began))

    def close(self) -> None:
        self._bar.close()

    def _describe(self, done: int, more: str, seconds: float) -> str:
        words = [describe_share(self._stage, done, self._total), *([more] if more else [])]
        times = [f"{describe_duration(seconds)} so far"]
        if self._total is not None and done > self._first:
            left_s = seconds / (done - self._first) * (self._total - done)
            times.append(f"about {describe_duration(left_s)} left")
        return f"{', '.join(words)}; {', '.join(times)}"


def describe_share(stage: str, done: int, total: int | None) -> str:
    """Return how much of a stage is done, in words.

    >>> describe_share("audit", 1200, 5000), describe_share("predict", 1200, None)
    ('audit: 1,200 of 5,000 pictures', 'predict: 1,200 pictures')
    """
    return f"{stage}: {done:,} pictures" if total is None else f"{stage}: {done:,} of {total:,} pictures"


def describe_duration(seconds: float) -> str:
    """Return a duration in words.

    >>> describe_duration(4.2), describe_duration(100), describe_duration(9000), describe_duration(200_000)
    ('4 s', '1 min 40 s', '2 h 30 min', '2 d 7 h')
    """
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
