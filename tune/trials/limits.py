"""How long a sweep may run and how much disk it may take until it is stopped, to be resumed later."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from shards.cli.progress import Clock
from shards.files.sizes import format_size, measure

_LOOK_EVERY_S = 5.0
"""Seconds between two measurements of the folder."""


@dataclass
class Limits:
    """Stops a sweep at the first of two limits; None: there is none.

    hours: Since this object was made. disk: Bytes of the sweep's folder.
    """

    hours: float | None = None
    disk: int | None = None
    clock: Clock = time.monotonic
    _began: float = field(init=False)
    _looked: float = field(init=False, default=float("-inf"))

    def __post_init__(self) -> None:
        self._began = self.clock()

    def find_reached(self, sweep_dir: Path) -> str | None:
        """Return which limit is reached, as the beginning of a sentence; None: none is."""
        now = self.clock()
        if self.hours is not None and now - self._began > self.hours * 3600:
            return f"stopped after {self.hours:g} h, the --max-hours"
        if self.disk is not None and now - self._looked >= _LOOK_EVERY_S:
            self._looked = now
            size = measure(sweep_dir)
            if size > self.disk:
                return (
                    f"stopped because {sweep_dir} takes {format_size(size)}, more than the --max-disk of "
                    f"{format_size(self.disk)}; raise it to go on"
                )
        return None
