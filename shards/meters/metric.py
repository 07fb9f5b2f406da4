"""A metric as tables of metrics name it, and the interface through which a process records numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class Metric:
    """A metric: its name, its kind, and what it says.

    name: Without the `_total` that counters have in Prometheus, and without the `ray_` that Ray's agents put before it.
    tags: Names of its labels. bounds: Upper bounds of a histogram's buckets.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    tags: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def series(self) -> str:
        """Its name in Prometheus.

        >>> Metric("shardline_train_steps", "counter", "Steps").series
        'shardline_train_steps_total'
        """
        return f"{self.name}_total" if self.kind == "counter" else self.name


class Meters:
    """Records the numbers of a process by the names of a table; this one records nothing.

    A counter that has no tags but those of the whole process starts at 0; others are started by counting 0: Prometheus
    cannot see an increase of a counter that begins at 1.
    """

    def count(self, name: str, number: float = 1.0, **tags: str) -> None:
        """Add to a counter; 0 starts it."""

    def set(self, name: str, value: float, **tags: str) -> None:
        """Set a gauge."""

    def drop(self, name: str, **tags: str) -> None:
        """Forget a gauge: Prometheus then has no value of it."""

    def observe(self, name: str, value: float, **tags: str) -> None:
        """Add a value to a histogram."""

    def before_each(self, look: Callable[[], None]) -> None:
        """Call a function, in another thread, each time before the numbers are read or written."""

    def close(self) -> None:
        """Record the numbers for the last time."""


SILENT: Final = Meters()
"""Records nothing."""


def list_plain(table: Sequence[Metric], common: Mapping[str, str]) -> list[Metric]:
    """Return the counters that have no tags but those of the whole process."""
    return [each for each in table if each.kind == "counter" and set(each.tags) <= common.keys()]
