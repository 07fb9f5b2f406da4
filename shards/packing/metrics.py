"""What packing and an audit count for Prometheus: one table of metrics, recorded along their progress.

docs/metrics.md is written from the table.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final, Literal, get_args

from shards.audit.examine import Progress
from shards.dataset.manifest import Manifest
from shards.meters.metric import Meters, Metric

Phase = Literal["running", "finished", "failed"]
_PHASES: Final[tuple[Phase, ...]] = get_args(Phase)
_OF: Final = ("dataset",)
_STAGE: Final = ("dataset", "stage")

PACKING: Final = (
    Metric("shardline_pack_pictures", "counter", "Pictures done, by stage: audit, write and others", _STAGE),
    Metric("shardline_pack_bytes", "counter", "Bytes of those pictures", _STAGE),
    Metric("shardline_pack_total_pictures", "gauge", "Pictures of a stage", _STAGE),
    Metric("shardline_pack_phase", "gauge", f"1 for the phase of the command: {', '.join(_PHASES)}", (*_OF, "phase")),
    Metric("shardline_pack_quarantined_pictures", "gauge", "Pictures left out because they cannot be read", _OF),
    Metric("shardline_pack_duplicate_pictures", "gauge", "Pictures that are copies of another in their split", _OF),
    Metric(
        "shardline_pack_leaks", "gauge", "Groups of equal pictures in several splits, allowed by --allow-leaks", _OF
    ),
    Metric("shardline_pack_packed_pictures", "gauge", "Pictures of the finished dataset, by split", (*_OF, "split")),
    Metric("shardline_pack_progress_timestamp_seconds", "gauge", "Unix time of the last progress", _OF),
    Metric("shardline_pack_alive_timestamp_seconds", "gauge", "Unix time at which these numbers were written", _OF),
)
"""All metrics of `shards pack` and `shards audit`; `dataset` is the last part of the target's path."""


class PackMeters:
    """Records the metrics of one command.

    Args:
        meters: Where they are recorded; it knows the tag `dataset`.
        clock: Returns Unix time.
    """

    def __init__(self, meters: Meters, clock: Callable[[], float] = time.time) -> None:
        self._meters, self._clock = meters, clock
        self._done: dict[str, int] = {}
        meters.before_each(lambda: meters.set("shardline_pack_alive_timestamp_seconds", clock()))

    def follow(self, progress: Progress) -> Progress:
        """Return a function that records progress before it passes it on."""

        def show(stage: str, done: int, total: int, size: int) -> None:
            self._advance(stage, done, total, size)
            progress(stage, done, total, size)

        return show

    def finish(self, manifest: Manifest) -> None:
        """Record what the finished dataset holds."""
        self._meters.set("shardline_pack_quarantined_pictures", manifest.quarantined)
        self._meters.set("shardline_pack_duplicate_pictures", manifest.audited.duplicates)
        self._meters.set("shardline_pack_leaks", manifest.audited.leaks)
        for split, totals in manifest.splits.items():
            self._meters.set("shardline_pack_packed_pictures", totals.samples, split=split)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Record that the command runs while the block does, and how it ends."""
        self._meters.set("shardline_pack_progress_timestamp_seconds", self._clock())
        self._enter("running")
        try:
            yield
        except BaseException:
            self._enter("failed")
            raise
        self._enter("finished")

    def _advance(self, stage: str, done: int, total: int, size: int) -> None:
        before = self._done.get(stage)
        if before is None:
            for name in ("pictures", "bytes"):
                self._meters.count(f"shardline_pack_{name}", 0, stage=stage)
        self._meters.count("shardline_pack_pictures", max(0, done - (before or 0)), stage=stage)
        self._meters.count("shardline_pack_bytes", size, stage=stage)
        self._meters.set("shardline_pack_total_pictures", total, stage=stage)
        self._meters.set("shardline_pack_progress_timestamp_seconds", self._clock())
        self._done[stage] = done

    def _enter(self, phase: Phase) -> None:
        for each in _PHASES:
            self._meters.set("shardline_pack_phase", each == phase, phase=each)
