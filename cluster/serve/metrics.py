"""What a replica counts, for Prometheus: one table of metrics, recorded through Ray.

Each node's Ray agent serves the metrics of all its replicas as Prometheus text, with the prefix `ray_`. docs/metrics.md
is written from the table.
"""

from __future__ import annotations

from typing import Final, get_args

from ray import serve
from ray.serve.exceptions import RayServeException

from shards.errors import DecodeErrorKind
from shards.meters.metric import Meters, Metric
from shards.workers.ray_meters import open_ray_meters
from trainer.contract.bundle import MOST_SHARES, BundlePage

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
_OF: Final = ("endpoint",)

METRICS: Final = (
    Metric(
        "shardline_requests",
        "counter",
        "Requests by page and by the kind of problem; `ok` if there is none",
        ("endpoint", "page", "outcome"),
    ),
    Metric(
        "shardline_request_ms",
        "histogram",
        "Milliseconds of a request in its replica",
        ("endpoint", "page"),
        _MILLISECONDS,
    ),
    Metric(
        "shardline_pictures",
        "counter",
        "Pictures that were answered, by bundle (12 digits of its fingerprint)",
        ("endpoint", "bundle"),
    ),
    Metric(
        "shardline_refused_pictures", "counter", "Pictures that could not be decoded, by reason", ("endpoint", "reason")
    ),
    Metric(
        "shardline_labels",
        "counter",
        f"Answers by predicted label; bundles of up to {MOST_SHARES} classes alone",
        ("endpoint", "label"),
    ),
    Metric(
        "shardline_expected_share",
        "gauge",
        "Share of validation pictures to which the bundle's decision gives each label, where the bundle says it",
        ("endpoint", "label"),
    ),
    Metric("shardline_abstentions", "counter", "Answers that leave the picture to a person", _OF),
    Metric("shardline_foreign_pictures", "counter", "Answers whose ood_score is above the bundle's threshold", _OF),
    Metric(
        "shardline_expected_foreign_share",
        "gauge",
        "Share of pictures like those of validation whose ood_score is above it, if the bundle's decision has `ood`",
        _OF,
    ),
    Metric(
        "shardline_stage_ms",
        "histogram",
        "Milliseconds of a picture in each stage: queue, decode, model",
        ("endpoint", "stage"),
        _MILLISECONDS,
    ),
    Metric("shardline_batch_size", "histogram", "Pictures in one forward pass", _OF, _SIZES),
    Metric("shardline_waiting", "gauge", "Pictures that a replica decodes, keeps waiting or computes", _OF),
    Metric("shardline_max_waiting", "gauge", "Most of them: the option max_waiting", _OF),
    Metric(
        "shardline_active_bundle",
        "gauge",
        "1 for the bundle that a replica answers with (12 digits of its fingerprint)",
        ("endpoint", "bundle"),
    ),
    Metric("shardline_compared", "counter", "Pictures that a bundle on trial (--shadow) computed as well", _OF),
    Metric("shardline_agreed", "counter", "Those of them for which both bundles gave the same labels", _OF),
)
"""All metrics of an endpoint; the tag `endpoint` is the name of its Ray Serve application."""


class Recorder:
    """Records the metrics of this replica; outside of a Ray cluster it records nothing."""

    def __init__(self, max_waiting: int) -> None:
        self._meters: Meters = open_ray_meters(METRICS, endpoint=_name_endpoint())
        self._labels: set[str] = set()
        self._bundle = ""
        self._meters.set("shardline_waiting", 0)
        self._meters.set("shardline_max_waiting", max_waiting)
        for kind in get_args(DecodeErrorKind):
            self._meters.count("shardline_refused_pictures", 0, reason=kind)

    def count(self, name: str, number: float = 1.0, **tags: str) -> None:
        """Add to a counter; nothing is recorded for 0."""
        if number:
            self._meters.count(name, number, **tags)

    def start_requests(self, page: str, outcomes: list[str]) -> None:
        """Let the counts of a page's requests begin at 0."""
        for outcome in outcomes:
            self._meters.count("shardline_requests", 0, page=page, outcome=outcome)

    def observe(self, name: str, value: float, **tags: str) -> None:
        """Add a value to a histogram."""
        self._meters.observe(name, value, **tags)

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""
        self._meters.set(name, value)

    def count_labels(self, labels: list[str], num_classes: int) -> None:
        """Count the labels of an answer."""
        if num_classes <= MOST_SHARES:
            for label in labels:
                self.count("shardline_labels", label=label)

    def follow(self, page: BundlePage, fingerprint: str) -> None:
        """Record what to expect of the answers of the bundle that is active from now on."""
        meters = self._meters
        if self._bundle:
            meters.drop("shardline_active_bundle", bundle=self._bundle)
        self._bundle = fingerprint[:12]
        meters.set("shardline_active_bundle", 1, bundle=self._bundle)
        meters.count("shardline_pictures", 0, bundle=self._bundle)
        if page.decision.ood is None:
            meters.drop("shardline_expected_foreign_share")
        else:
            meters.set("shardline_expected_foreign_share", 1 - page.decision.ood.kept)
        self._expect(page)

    def _expect(self, page: BundlePage) -> None:
        for label in self._labels:
            self._meters.drop("shardline_expected_share", label=label)
        for label, share in page.expected_shares.items():
            self._meters.set("shardline_expected_share", share, label=label)
        self._labels = set(page.expected_shares)
        for label in page.classes if len(page.classes) <= MOST_SHARES else ():
            self._meters.count("shardline_labels", 0, label=label)


def _name_endpoint() -> str:
    """Return the name of the application that this process is a replica of; "" elsewhere."""
    try:
        return str(serve.get_replica_context().app_name)
    except RayServeException:
        return ""
