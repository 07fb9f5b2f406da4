"""What a run counts for Prometheus: one table of metrics, and what the loop records of them.

docs/metrics.md is written from the table.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Literal, get_args

from shards.meters.metric import SILENT, Meters, Metric
from trainer.feed.meter import Readings
from trainer.record.logbook import Numbers

Phase = Literal["preparing", "training", "validating", "finishing", "finished", "interrupted", "failed"]
PHASES: Final[tuple[Phase, ...]] = get_args(Phase)
_RUN: Final = ("run",)
_RANK: Final = ("run", "rank")
_SECONDS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)

TRAINING: Final = (
    Metric("shardline_train_pictures", "counter", "Pictures trained on by all ranks since this start", _RUN),
    Metric("shardline_train_steps", "counter", "Global steps since this start", _RUN),
    Metric(
        "shardline_train_step_seconds", "histogram", "Seconds of a step, with waiting for its batch", _RANK, _SECONDS
    ),
    Metric("shardline_train_wait_seconds", "counter", "Seconds that a rank waited for its batches", _RANK),
    Metric(
        "shardline_train_stage_seconds",
        "counter",
        "Seconds of a rank's feed, over all its threads, by stage: fetch, read, decode, augment, device",
        ("run", "rank", "stage"),
    ),
    Metric("shardline_train_read_bytes", "counter", "Bytes that a rank read from shards", _RANK),
    Metric("shardline_train_downloaded_bytes", "counter", "Bytes of shards that a rank fetched from a store", _RANK),
    Metric("shardline_train_cache_hits", "counter", "Shards of a remote dataset that were in the cache", _RANK),
    Metric("shardline_train_cache_misses", "counter", "Shards of a remote dataset that had to be fetched", _RANK),
    Metric("shardline_train_skipped_steps", "counter", "Steps that moved no weight: float16 overflowed", _RUN),
    Metric("shardline_train_snapshots", "counter", "Snapshots since this start", _RUN),
    Metric(
        "shardline_train_restarts",
        "counter",
        "Starts after one that did not end by itself or by Ctrl-C: a lost worker or node, an error, added ranks. Kept "
        "with the run, so take the maximum over its series",
        _RUN,
    ),
    Metric(
        "shardline_train_phase", "gauge", f"1 for the phase that a run is in: {', '.join(PHASES)}", ("run", "phase")
    ),
    Metric("shardline_train_ranks", "gauge", "Ranks that train together", _RUN),
    Metric("shardline_train_batch_size", "gauge", "Pictures of a global step", _RUN),
    Metric("shardline_train_epoch", "gauge", "The epoch that is trained, from 1", _RUN),
    Metric("shardline_train_position", "gauge", "Pictures seen in all epochs so far, over all starts", _RUN),
    Metric("shardline_train_total_pictures", "gauge", "Pictures of all epochs", _RUN),
    Metric("shardline_train_loss", "gauge", "Mean training loss of the epoch so far", _RUN),
    Metric("shardline_train_learning_rate", "gauge", "Learning rate of the last step", _RUN),
    Metric("shardline_train_score", "gauge", "The stop metric of the last epoch on validation", ("run", "metric")),
    Metric("shardline_train_best_score", "gauge", "The best value of the stop metric", ("run", "metric")),
    Metric("shardline_train_step_timestamp_seconds", "gauge", "Unix time of the end of the last step", _RUN),
    Metric(
        "shardline_train_snapshot_timestamp_seconds",
        "gauge",
        "Unix time of the last snapshot, or of the start of training before the first: what a lost worker costs",
        _RUN,
    ),
    Metric("shardline_train_snapshot_interval_seconds", "gauge", "The option snapshot.every_s", _RUN),
    Metric("shardline_train_alive_timestamp_seconds", "gauge", "Unix time at which these numbers were written", _RUN),
)
"""All metrics of a run. The tag `rank` stands where each rank has numbers of its own; rank 0 records the rest."""


class RunMeters:
    """Records the metrics of one rank of a run.

    Args:
        meters: Where they are recorded; it knows the tags `run` and `rank`.
        is_first: Whether this is rank 0.
        clock: Returns Unix time.
    """

    def __init__(
        self,
        meters: Meters = SILENT,
        is_first: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._meters, self._clock = meters, clock
        self._whole = meters if is_first else SILENT
        """Records what is the same for all ranks."""
        self._read: Callable[[], Readings] | None = None
        self._before = Readings()
        self._phase: Phase | None = None
        self._metric = ""
        self._skipped = 0
        meters.before_each(self._look)

    @property
    def records(self) -> bool:
        """Whether numbers are recorded anywhere."""
        return self._meters is not SILENT

    def begin(self, restarts: int, num_ranks: int) -> None:
        """Record how often the run was restarted, and that it is prepared."""
        self._whole.count("shardline_train_restarts", restarts)
        self._whole.set("shardline_train_ranks", num_ranks)
        self.enter("preparing")

    def open(
        self,
        *,
        metric: str,
        batch_size: int,
        position: int,
        total: int,
        skipped: int,
        every_s: float,
        read: Callable[[], Readings],
    ) -> None:
        """Record where training starts or resumes.

        Args:
            metric: The stop metric.
            batch_size: Pictures of a global step.
            position: Pictures seen so far.
            total: Pictures of all epochs.
            skipped: Skipped steps so far.
            every_s: Seconds between snapshots.
            read: Returns the readings of this rank's feed.
        """
        whole, self._metric, self._skipped, self._read = self._whole, metric, skipped, read
        whole.set("shardline_train_batch_size", batch_size)
        whole.set("shardline_train_position", position)
        whole.set("shardline_train_total_pictures", total)
        whole.set("shardline_train_snapshot_interval_seconds", every_s)
        for name in ("step", "snapshot"):
            whole.set(f"shardline_train_{name}_timestamp_seconds", self._clock())

    def begin_epoch(self, epoch: int) -> None:
        """Record that an epoch, from 0, or the rest of it, begins."""
        self._whole.set("shardline_train_epoch", epoch + 1)
        self.enter("training")

    def enter(self, phase: Phase) -> None:
        """Record the phase of the run."""
        if self._phase is None:
            for each in PHASES:
                self._whole.set("shardline_train_phase", 0, phase=each)
        else:
            self._whole.set("shardline_train_phase", 0, phase=self._phase)
        self._whole.set("shardline_train_phase", 1, phase=phase)
        self._phase = phase

    def end_step(self, pictures: int, position: int, skipped: int, lr: float, time_s: float, wait_s: float) -> None:
        """Record a step.

        Args:
            pictures: Its pictures, over all ranks.
            position: Pictures seen after it.
            skipped: Skipped steps so far.
            lr: Its learning rate.
            time_s: Its seconds, with waiting for its batch.
            wait_s: Seconds of waiting.
        """
        self._meters.observe("shardline_train_step_seconds", time_s)
        self._meters.count("shardline_train_wait_seconds", wait_s)
        whole = self._whole
        whole.count("shardline_train_pictures", pictures)
        whole.count("shardline_train_steps")
        whole.count("shardline_train_skipped_steps", skipped - self._skipped)
        whole.set("shardline_train_position", position)
        whole.set("shardline_train_learning_rate", lr)
        whole.set("shardline_train_step_timestamp_seconds", self._clock())
        self._skipped = skipped

    def show_loss(self, loss: float) -> None:
        """Record the epoch's mean loss so far."""
        self._whole.set("shardline_train_loss", loss)

    def save(self) -> None:
        """Record that a snapshot was taken."""
        self._whole.count("shardline_train_snapshots")
        self._whole.set("shardline_train_snapshot_timestamp_seconds", self._clock())

    def end_epoch(self, numbers: Numbers) -> None:
        """Record the result of an epoch; `numbers` is its row of metrics.jsonl."""
        self._whole.set("shardline_train_loss", numbers["train/loss"])
        self._whole.set("shardline_train_score", numbers[f"val/{self._metric}"], metric=self._metric)
        self._whole.set("shardline_train_best_score", numbers["val/best"], metric=self._metric)

    def _look(self) -> None:
        """Record what is read at intervals."""
        self._whole.set("shardline_train_alive_timestamp_seconds", self._clock())
        if self._read is None:
            return
        now = self._read()
        since, self._before = now.since(self._before), now
        for stage, seconds in since.seconds.items():
            self._meters.count("shardline_train_stage_seconds", seconds, stage=stage)
        self._meters.count("shardline_train_read_bytes", since.bytes_read)
        self._meters.count("shardline_train_downloaded_bytes", since.bytes_downloaded)
        self._meters.count("shardline_train_cache_hits", since.cache_hits)
        self._meters.count("shardline_train_cache_misses", since.cache_misses)
