"""What a sweep counts for Prometheus: one table of metrics, recorded by its command.

docs/metrics.md is written from the table; each trial's own metrics are those of a run.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final, Literal, get_args

from shards.errors import Interrupted
from shards.meters.metric import SILENT, Meters, Metric
from shards.meters.textfile import open_textfile
from shards.workers.ray_meters import open_ray_meters
from trainer.recipes.recipe import Recipe

Phase = Literal["screen", "confirm", "finished", "interrupted", "failed"]
_PHASES: Final[tuple[Phase, ...]] = get_args(Phase)
_OF: Final = ("sweep",)
STATES: Final = ("finished", "stopped", "failed")

SWEEP: Final = (
    Metric("shardline_sweep_phase", "gauge", f"1 for the phase of a sweep: {', '.join(_PHASES)}", (*_OF, "phase")),
    Metric("shardline_sweep_total_trials", "gauge", "Trials of the phase, at most", _OF),
    Metric(
        "shardline_sweep_trials",
        "counter",
        "Trials that ended, by how: finished, stopped by the scheduler or a limit, failed",
        (*_OF, "state"),
    ),
    Metric("shardline_sweep_retries", "counter", "Trials that lost their process and were started again", _OF),
    Metric("shardline_sweep_epochs", "counter", "Epochs of all trials of this start", _OF),
    Metric("shardline_sweep_total_epochs", "gauge", "Epochs of the phase, if no trial is stopped early", _OF),
    Metric(
        "shardline_sweep_best_score", "gauge", "The best finished trial's stop metric on validation", (*_OF, "metric")
    ),
    Metric("shardline_sweep_epoch_timestamp_seconds", "gauge", "Unix time of the last epoch of any trial", _OF),
    Metric("shardline_sweep_alive_timestamp_seconds", "gauge", "Unix time at which these numbers were written", _OF),
)
"""All metrics of a sweep."""


class SweepMeters:
    """Records the metrics of a sweep.

    Args:
        meters: Where they are recorded; it knows the tag `sweep`.
        clock: Returns Unix time.
    """

    def __init__(self, meters: Meters = SILENT, clock: Callable[[], float] = time.time) -> None:
        self._meters, self._clock = meters, clock
        self._epochs = 0
        for state in STATES:
            meters.count("shardline_sweep_trials", 0, state=state)
        meters.before_each(lambda: meters.set("shardline_sweep_alive_timestamp_seconds", clock()))

    def __reduce__(self) -> tuple[type[SweepMeters], tuple[()]]:
        """Tune writes its callbacks to a file that nothing reads; threads and files are none of it."""
        return SweepMeters, ()

    def begin(self, phase: Phase, trials: int, epochs: int, epochs_done: int) -> None:
        """Record that a phase of so many trials and epochs begins, of which an earlier start has done some."""
        self.enter(phase)
        self._epochs = epochs_done
        self._meters.set("shardline_sweep_total_trials", trials)
        self._meters.set("shardline_sweep_total_epochs", epochs)
        self._meters.set("shardline_sweep_epoch_timestamp_seconds", self._clock())

    def enter(self, phase: Phase) -> None:
        """Record the phase of the sweep."""
        for each in _PHASES:
            self._meters.set("shardline_sweep_phase", each == phase, phase=each)

    def advance(self, epochs: int) -> None:
        """Record how many epochs the trials of this phase have in all."""
        if epochs > self._epochs:
            self._meters.count("shardline_sweep_epochs", epochs - self._epochs)
            self._meters.set("shardline_sweep_epoch_timestamp_seconds", self._clock())
            self._epochs = epochs

    def end_trial(self, state: str) -> None:
        """Record that a trial has ended."""
        self._meters.count("shardline_sweep_trials", state=state)

    def retry(self) -> None:
        """Record that a trial is started again."""
        self._meters.count("shardline_sweep_retries")

    def show_best(self, metric: str, value: float) -> None:
        """Record the value of the best finished trial."""
        self._meters.set("shardline_sweep_best_score", value, metric=metric)


@contextlib.contextmanager
def measured_sweep(recipe: Recipe) -> Iterator[SweepMeters]:
    """Yield what records a sweep's metrics, and how the block ends; in a file if the recipe names a folder for it."""
    with contextlib.ExitStack() as stack:
        if recipe.track.metrics_dir is None:
            meters = open_ray_meters(SWEEP, sweep=recipe.name)
            stack.callback(meters.close)
        else:
            place = recipe.track.metrics_dir
            meters = stack.enter_context(open_textfile(place, "sweep", recipe.name, SWEEP, sweep=recipe.name))
        sweep = SweepMeters(meters)
        try:
            yield sweep
        except (Interrupted, KeyboardInterrupt):
            sweep.enter("interrupted")
            raise
        except BaseException:
            sweep.enter("failed")
            raise
        sweep.enter("finished")
