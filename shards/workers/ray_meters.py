"""Numbers of a process for Prometheus, recorded through Ray: its agent on each node serves those of all processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import shards.workers.ray_cluster  # noqa: F401  # isort: skip, it quiets Ray

import ray
from ray.util.metrics import Counter, Gauge, Histogram

from shards.meters.metric import SILENT, Meters, Metric, list_plain
from shards.meters.ticking import Ticker
from shards.workers.ray_private import start_counter

REFRESH_S: Final = 1.0
"""Ray forgets a gauge that was not set for two of its reports, which are at least a second apart (10 by default)."""

Key = tuple[str, tuple[tuple[str, str], ...]]


class RayMeters(Meters):
    """Records numbers in Ray's metrics while this process is connected to a cluster.

    Args:
        table: What can be recorded.
        common: Tags of every metric that names them.
    """

    def __init__(self, table: Sequence[Metric], **common: str) -> None:
        self._tags = {metric.name: {tag: common[tag] for tag in metric.tags if tag in common} for metric in table}
        self._open = {metric.name: _open(metric) for metric in table}
        self._lock = threading.Lock()
        self._gauges: dict[Key, float] = {}
        self._started: set[Key] = set()
        # Errors are those of a cluster that is gone, or of what is looked at while it ends.
        self._ticker = Ticker(self._refresh, lambda _: None, REFRESH_S)
        for metric in list_plain(table, common):
            self.count(metric.name, 0.0)

    def count(self, name: str, number: float = 1.0, **tags: str) -> None:
        given = {**self._tags[name], **tags}
        if number:
            self._open[name].inc(number, tags=given)
        elif (key := (name, tuple(given.items()))) not in self._started:
            self._started.add(key)
            start_counter(self._open[name], given)

    def observe(self, name: str, value: float, **tags: str) -> None:
        self._open[name].observe(value, tags={**self._tags[name], **tags})

    def set(self, name: str, value: float, **tags: str) -> None:
        given = {**self._tags[name], **tags}
        with self._lock:
            self._gauges[name, tuple(given.items())] = value
        self._open[name].set(value, tags=given)

    def drop(self, name: str, **tags: str) -> None:
        with self._lock:
            self._gauges.pop((name, tuple({**self._tags[name], **tags}.items())), None)

    def before_each(self, look: Callable[[], None]) -> None:
        self._ticker.before_each(look)

    def close(self) -> None:
        """Record the numbers for the last time; Ray forgets the gauges within two of its reports."""
        self._ticker.close()

    def _refresh(self) -> None:
        with self._lock:
            gauges = list(self._gauges.items())
        for (name, tags), value in gauges:
            self._open[name].set(value, tags=dict(tags))


def _open(metric: Metric) -> Any:
    """Return Ray's object that records a metric."""
    if metric.kind == "histogram":
        return Histogram(metric.name, metric.meaning, boundaries=list(metric.bounds), tag_keys=metric.tags)
    return (Counter if metric.kind == "counter" else Gauge)(metric.name, metric.meaning, tag_keys=metric.tags)


def open_ray_meters(table: Sequence[Metric], **common: str) -> Meters:
    """Return what records numbers in Ray's metrics; nothing is recorded outside of a cluster."""
    return RayMeters(table, **common) if ray.is_initialized() else SILENT
