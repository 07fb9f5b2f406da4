"""Progress of a sweep: a line for each trial that ends, and a line a minute in between."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from typing import Any, Literal

from ray import tune

from shards.cli.progress import LINE_EVERY_S, Clock, describe_duration
from shards.files.atomic import write_text
from trainer.record.logbook import METRICS, read_metrics
from trainer.record.progress import TICK_S
from trainer.record.run_folder import STOP_FILE
from tune.space.variants import Trial
from tune.trials.metrics import SweepMeters
from tune.trials.table import FINISHED, Row, read_table
from tune.trials.trial import FAILURE_FILE, STOPPED_FILE

logger = logging.getLogger(__name__)


class SweepProgress(tune.Callback):
    """Logs the results of ended trials. The trials' own messages stay in their folders: they would flood the screen.

    Args:
        trials: The trials of a phase of the sweep; more may be added while it runs.
        count: How many there will be at most.
        phase: Its name.
        every_s: Longest time without a line.
        clock: Returns seconds.
        meters: Record the same for Prometheus.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        count: int,
        phase: Literal["screen", "confirm"] = "screen",
        every_s: float = LINE_EVERY_S,
        clock: Clock = time.monotonic,
        meters: SweepMeters | None = None,
    ) -> None:
        self._meters = meters or SweepMeters()
        self._trials, self._count, self._phase = trials, count, phase
        self._every_s, self._clock = every_s, clock
        self._began = self._logged_at = clock()
        self._ended: set[str] = set()
        self._finished: list[Row] = []
        self._counted: dict[str, tuple[int, int]] = {}
        """Name of a trial -> the size of its file of metrics, and the epochs in it."""

    @property
    def total(self) -> int:
        """Epochs of all trials, if none is stopped early; trials to come are like the first."""
        known = [trial.recipe.epochs for trial in list(self._trials)]
        return sum(known) + known[0] * (self._count - len(known))

    def begin(self) -> None:
        """Log the size of the phase."""
        self._meters.begin(self._phase, self._count, self.total, self.count_epochs())
        self._log(f"{self._phase}: {self._count:,} trials on Ray, at most {self.total:,} epochs")

    def count_epochs(self) -> int:
        """Return the number of finished epochs of all trials."""
        return sum(map(self._count_epochs, list(self._trials)))

    def _count_epochs(self, trial: Trial) -> int:
        """Return the finished epochs of a trial; its file is read only when it has grown."""
        try:
            size = (trial.folder.path / METRICS).stat().st_size
        except FileNotFoundError:
            return 0
        if self._counted.get(trial.name, (-1, 0))[0] != size:
            self._counted[trial.name] = size, len(read_metrics(trial.folder.path))
        return self._counted[trial.name][1]

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Log the result of a trial that ended or was stopped; called by Tune."""
        del iteration, trials, info
        name = str(trial.config["recipe"]["name"])
        self._mark_stopped(next(each for each in self._trials if each.name == name))
        self._end(name)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Log that a trial crashed for good; called by Tune."""
        del iteration, trials, info
        self._end(str(trial.config["recipe"]["name"]), "crashed")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count a trial that lost its process and is started again; called by Tune."""
        del iteration, trials, trial, info
        self._meters.retry()

    def tick(self) -> None:
        """Log the sweep's progress, if the next tick would come too late for a line."""
        self._meters.advance(self.count_epochs())
        if self._clock() - self._logged_at + TICK_S > self._every_s:
            self._log(
                f"{len(self._ended):,} of {self._count:,} trials ended, {self.count_epochs():,} of "
                f"{self.total:,} epochs done"
            )

    def _mark_stopped(self, trial: Trial) -> None:
        """Remember that the scheduler stopped a trial, and drop its snapshots: nothing goes on from them."""
        folder = trial.folder
        sweep_dir = folder.path.parent.parent
        is_interrupted = folder.stop_file.exists() or (sweep_dir / STOP_FILE).exists()
        has_ended_itself = folder.is_finished or (folder.path / FAILURE_FILE).exists()
        if not (is_interrupted or has_ended_itself) and read_metrics(folder.path):
            write_text(folder.path / STOPPED_FILE, "")
            shutil.rmtree(folder.snapshots, ignore_errors=True)

    def _end(self, name: str, failure: str = "") -> None:
        if name in self._ended:
            return
        self._ended.add(name)
        self._log(f"trial {len(self._ended):,}/{self._count:,}, {name}: {self._describe(name, failure)}")

    def _describe(self, name: str, failure: str) -> str:
        trial = next(trial for trial in self._trials if trial.name == name)
        table = read_table([trial])
        failure = table.failures.get(name, failure)
        if failure or not table.rows:
            self._meters.end_trial("failed")
            return f"failed: {failure or 'it has no epoch'}"
        row = table.rows[0]
        self._finished += table.finished
        self._meters.end_trial("finished" if table.finished else "stopped")
        ran = f"{row.status} after {row.epochs:,} of {trial.recipe.epochs:,} epochs"
        words = f"val {table.metric.replace('_', ' ')} {row.value:.4f}, {ran}"
        if not self._finished:
            return words
        choose = min if trial.recipe.stop.lower_is_better else max
        best = choose(self._finished, key=lambda each: each.value)
        self._meters.show_best(table.metric, best.value)
        return f"{words} ({_compare(row, best)})"

    def _log(self, line: str) -> None:
        self._logged_at = now = self._clock()
        times = f"{describe_duration(now - self._began)} so far"
        left = self._count - len(self._ended)
        if self._ended and left:
            # The estimate counts trials that end early as whole ones: as many of the remaining trials will end early,
            # too.
            times += f", about {describe_duration((now - self._began) / len(self._ended) * left)} left"
        logger.info("%s; %s", line, times)


def _compare(row: Row, best: Row) -> str:
    if row.status == FINISHED and row.trial == best.trial:
        return "the best finished so far"
    return f"best {best.value:.4f}, {best.trial}"
