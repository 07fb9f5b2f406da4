"""What a replica counts, for Prometheus: one table of metrics, recorded through Ray.

Each node's Ray agent serves the metrics of all its replicas as Prometheus text, with the prefix `ray_`. docs/metrics.md
is written from the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import ray
from ray.util.metrics import Counter, Gauge, Histogram

_MILLISECONDS: Final = (
    1.0,
    2.0,
    5.0,
    10.0,
    20.0,
    50.0,
    100.0,
    200.0,
    500.0,
    1000.0,
    2000.0,
    5000.0,
    10_000.0,
    30_000.0,
)
_SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
_MOST_LABELS: Final = 200
"""Bundles with more classes are not counted by class: each label is a time series of its own in Prometheus."""


@dataclass(frozen=True)
class Metric:
    """A metric: its name without Ray's prefix, its kind, and what it says."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    tags: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    def open(self) -> Any:
        """Return Ray's object that records it."""
        if self.kind == "histogram":
            return Histogram(self.name, self.meaning, boundaries=list(self.bounds), tag_keys=self.tags)
        return (Counter if self.kind == "counter" else Gauge)(self.name, self.meaning, tag_keys=self.tags)


METRICS: Final = (
    Metric(
        "shardline_requests",
        "counter",
        "Requests by page and by the kind of problem; `ok` if there is none",
        ("page", "outcome"),
    ),
    Metric(
        "shardline_pictures",
        "counter",
        "Pictures that were answered, by bundle (12 digits of its fingerprint)",
        ("bundle",),
    ),
    Metric("shardline_refused_pictures", "counter", "Pictures that could not be decoded, by reason", ("reason",)),
    Metric(
        "shardline_labels",
        "counter",
        f"Answers by predicted label; bundles of up to {_MOST_LABELS} classes alone",
        ("label",),
    ),
    Metric("shardline_abstentions", "counter", "Answers that leave the picture to a person"),
    Metric("shardline_foreign_pictures", "counter", "Answers whose ood_score is above the bundle's threshold"),
    Metric(
        "shardline_stage_ms",
        "histogram",
        "Milliseconds of a picture in each stage: queue, decode, model",
        ("stage",),
        _MILLISECONDS,
    ),
    Metric("shardline_batch_size", "histogram", "Pictures in one forward pass", (), _SIZES),
    Metric("shardline_waiting", "gauge", "Pictures that a replica decodes, keeps waiting or computes"),
    Metric("shardline_compared", "counter", "Pictures that a bundle on trial (--shadow) computed as well"),
    Metric("shardline_agreed", "counter", "Those of them for which both bundles gave the same labels"),
)
"""All metrics of an endpoint."""


class Recorder:
    """Records the metrics of this replica; outside of a Ray cluster it records nothing."""

    def __init__(self) -> None:
        self._open = {metric.name: metric.open() for metric in METRICS} if ray.is_initialized() else {}

    def count(self, name: str, number: float = 1.0, **tags: str) -> None:
        """Add to a counter; nothing is recorded for 0."""
        if number and self._open:
            self._open[name].inc(number, tags=tags)

    def observe(self, name: str, value: float, **tags: str) -> None:
        """Add a value to a histogram."""
        if self._open:
            self._open[name].observe(value, tags=tags)

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""
        if self._open:
            self._open[name].set(value)

    def count_labels(self, labels: list[str], num_classes: int) -> None:
        """Count the labels of an answer."""
        if num_classes <= _MOST_LABELS:
            for label in labels:
                self.count("shardline_labels", label=label)
