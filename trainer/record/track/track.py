"""Tracking with Weights & Biases and TensorBoard, on rank 0 only. Failures here never stop training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from shards.dataset.dataset import Dataset
from trainer.contract.metrics import name_figures
from trainer.contract.task import make_task
from trainer.recipes.recipe import Recipe
from trainer.record.logbook import Numbers, read_metrics
from trainer.record.steps import read_steps
from trainer.record.track.wandb_run import Judged, Picture, WandbRun, choose_summary, clean_name

if TYPE_CHECKING:
    from trainer.record.track.tensorboard import EventFiles

logger = logging.getLogger(__name__)

Outside = TypeVar("Outside")


class Tracker:
    """One run in W&B and TensorBoard, as set in its recipe; nothing is sent before `start`.

    Args:
        recipe: The run's recipe.
        run_dir: The run folder, which exists.
        num_ranks: Actual number of ranks.
    """

    def __init__(self, recipe: Recipe, run_dir: Path, num_ranks: int) -> None:
        self._recipe, self._run_dir = recipe, run_dir
        self._num_ranks = num_ranks
        self._wandb: _Guarded[WandbRun] = _Guarded("W&B")
        self._events: _Guarded[EventFiles] = _Guarded("TensorBoard")
        self._best: Numbers | None = None
        self._classes: list[str] = []
        self._default: str | None = None

    def start(self, dataset: Dataset, step: int) -> None:
        """Start or resume tracking, after the files in the run folder are cut to the snapshot it resumes from.

        Args:
            dataset: The training dataset.
            step: Global steps at the snapshot, 0 for a new run.
        """
        self._classes, self._default = dataset.classes, make_task(dataset.manifest.task).find_positive(dataset.classes)
        mode = self._recipe.track.choose_wandb_mode()
        if mode != "disabled":
            self._wandb.open(lambda: WandbRun(self._recipe, self._run_dir, dataset, self._num_ranks, mode))
        if mode == "online" and not self._wandb.is_open:
            folder = self._run_dir / "wandb"
            logger.warning("W&B data is stored in %s; send it with `wandb sync`", folder)
            self._wandb.open(lambda: WandbRun(self._recipe, self._run_dir, dataset, self._num_ranks, "offline"))
        if self._recipe.track.tensorboard:
            self._events.open(lambda: _open_events(self._run_dir, step))
            for row in [*read_steps(self._run_dir), *read_metrics(self._run_dir)]:
                if row.get("step") == step:  # purged with everything an earlier start wrote from here on
                    self._write_events(self._name_row(row), step)

    @property
    def takes_images(self) -> bool:
        """Whether log_image and log_pictures have an effect."""
        return self._recipe.track.images and self._wandb.is_open

    def log_step(self, numbers: Numbers) -> None:
        """Log a row of steps.jsonl."""
        self._wandb.use(lambda run: run.log_step(numbers))
        self._write_events(numbers, int(numbers["step"]))

    def log_epoch(self, numbers: Numbers, positive: str | None = None) -> None:
        """Log a row of metrics.jsonl, which is already in the file; `positive` is the positive class."""
        numbers = self._name(numbers, positive)
        best = self._take_best(numbers)
        self._wandb.use(lambda run: run.log_epoch(numbers, best))
        self._write_events(numbers, int(numbers["step"]))
        self._events.use(lambda events: events.flush())

    def log_evaluation(self, judged: Judged) -> None:
        """Log the metrics of the final evaluation of a split, after all epochs are in metrics.jsonl."""
        self._wandb.use(lambda run: run.log_evaluation(judged))
        last = read_metrics(self._run_dir)[-1:]
        self._write_events(judged.scalars(), int(last[0].get("step", 0)) if last else 0)

    def log_image(self, name: str, path: Path) -> None:
        """Log a picture file, such as a sheet of augmented samples, if track.images is set."""
        if self.takes_images:
            self._wandb.use(lambda run: run.log_image(name, path))

    def log_pictures(self, name: str, pictures: Sequence[Picture]) -> None:
        """Log pictures as a table with label, prediction, probability and path, if track.images is set."""
        if self.takes_images:
            self._wandb.use(lambda run: run.log_pictures(name, pictures))

    def close(self, exit_code: int = 0) -> None:
        """End the run; W&B shows one whose exit code is not 0 as failed."""
        self._wandb.use(lambda run: run.close(exit_code))
        self._events.use(lambda events: events.close())

    def _name(self, numbers: Numbers, positive: str | None) -> Numbers:
        """Return numbers by their display names, with the class for metrics of one class."""
        return name_figures(numbers, positive and clean_name(positive), len(self._classes))

    def _name_row(self, row: dict[str, Any]) -> Numbers:
        """Return the numbers of a file's row by display names; rows of earlier versions have no class."""
        numbers = {name: value for name, value in row.items() if not isinstance(value, str)}
        return self._name(numbers, row.get("val/positive", self._default))

    def _write_events(self, numbers: Numbers, step: int) -> None:
        named = {name: value for name, value in numbers.items() if "/" in name}
        self._events.use(lambda events: events.write(named, step))

    def _take_best(self, numbers: Numbers) -> Numbers:
        """Return the best value of each score over all epochs, including those before a restart."""
        rows = [numbers]
        if self._best is None:
            rows = [self._name_row(row) for row in read_metrics(self._run_dir)]
        self._best = self._best or {}
        for row in rows:
            for name, value in row.items():
                kind = choose_summary(name)
                if kind is not None:
                    self._best[name] = (max if kind == "max" else min)(value, self._best.get(name, value))
        return self._best


def _open_events(run_dir: Path, step: int) -> EventFiles:
    from trainer.record.track.tensorboard import EventFiles  # late: most runs do not ask for it

    return EventFiles(run_dir, step)


class _Guarded(Generic[Outside]):
    """An object of another library that may fail at any time: its errors are logged, not raised."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._inside: Outside | None = None
        self._said: set[str] = set()

    @property
    def is_open(self) -> bool:
        return self._inside is not None

    def open(self, start: Callable[[], Outside]) -> None:
        try:
            self._inside = start()
        except Exception as err:  # tracking is optional; the run and metrics.jsonl continue without it
            logger.warning("%s does not record this run: %s", self._name, err)

    def use(self, function: Callable[[Outside], None]) -> None:
        if self._inside is None:
            return
        try:
            function(self._inside)
        except Exception as err:
            if str(err) not in self._said:  # a dead service fails in every step
                logger.warning("%s failed and has an incomplete record of this run: %s", self._name, err)
            self._said.add(str(err))
