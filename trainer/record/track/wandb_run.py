"""A run in Weights & Biases, with charts and tables of pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from shards.dataset.dataset import Dataset
from trainer.contract.metrics import is_lower_better, name_figures
from trainer.recipes.recipe import Recipe
from trainer.record.code import read_git_sha
from trainer.record.logbook import Numbers
from trainer.record.track.wandb_session import Heading, WandbSession

if TYPE_CHECKING:
    from trainer.record.track.curves import Score

_NO_SCORES = ("time_s", "samples", "best", "best_epoch")


@dataclass(frozen=True)
class Picture:
    """A picture of an evaluation: pixels uint8[H, W, C], class names, probability of the true class, source file."""

    pixels: npt.NDArray[np.uint8]
    label: str
    prediction: str
    probability: float
    path: str


@dataclass(frozen=True)
class Judged:
    """The final evaluation of a split.

    part: train, val or test; metrics: as from trainer.evaluate.metrics.metrics, possibly without `confusion`; labels:
    int64[N] class numbers, or int64[N, K] of 0 and 1; score: returns the scores of a class; classes: K names.
    """

    part: str
    metrics: dict[str, Any]
    labels: npt.NDArray[np.int64]
    score: Score
    classes: list[str]

    def scalars(self) -> Numbers:
        """Return the metrics that are single numbers, as split/name, with the class for metrics of one class."""
        numbers = {name: value for name, value in self.metrics.items() if isinstance(value, (int, float))}
        named = name_figures(numbers, self.positive and clean_name(self.positive), len(self.classes))
        return {f"{self.part}/{name}": float(value) for name, value in named.items()}

    @property
    def positive(self) -> str | None:
        """The positive class; None if there is none."""
        return self.metrics.get("positive")


class WandbRun:
    """A run in W&B; mode: online or offline. Any method may raise anything.

    Args:
        recipe: The run's recipe; it is the config.
        run_dir: The run folder.
        dataset: The training dataset.
        num_ranks: Actual number of ranks.
        mode: online or offline.
    """

    def __init__(self, recipe: Recipe, run_dir: Path, dataset: Dataset, num_ranks: int, mode: Any) -> None:
        options, self._defined = recipe.track, set[str]()
        job_type = options.job_type or ("trial" if options.group else "train")
        heading = Heading(options.project, options.group, job_type, recipe.name, options.tags)
        config = {**options.config, **recipe.describe(), **describe_identity(recipe, dataset), "world_size": num_ranks}
        self._session = WandbSession(run_dir, heading, config, mode)
        self._wandb, self._run = self._session.wandb, self._session.run
        self._run.define_metric("*", step_metric="epoch")
        self._run.define_metric("step/*", step_metric="step")

    def log_step(self, numbers: Numbers) -> None:
        """Log a row with its step as W&B's step, so that a resumed run does not repeat steps on the server."""
        self._run.log(numbers, step=int(numbers["step"]))

    def log_epoch(self, numbers: Numbers, best: Numbers) -> None:
        """Log a row; best: best value of each score over all epochs, because W&B forgets those before a restart."""
        for name in numbers.keys() - self._defined:
            if choose_summary(name):
                self._run.define_metric(name, step_metric="epoch", summary=choose_summary(name))
        self._defined |= numbers.keys()
        self._run.log(numbers, step=int(numbers["step"]), commit=True)
        summary: dict[str, Any] = {name: {choose_summary(name): value} for name, value in best.items()}
        if "val/best_epoch" in numbers:
            summary["best_epoch"] = numbers["val/best_epoch"]
        self._run.summary.update(summary)

    def log_evaluation(self, judged: Judged) -> None:
        """Write the metrics to the summary, and log confusion matrix and curves as tables."""
        from trainer.record.track.curves import list_cells, trace_pr, trace_roc  # late: most runs show nothing

        self._run.summary.update(judged.scalars())
        part, curves = judged.part, (judged.labels, judged.score, judged.classes)
        charts = {
            f"{part}/roc": self._draw_lines("ROC", ["class", "fpr", "tpr"], trace_roc(*curves, judged.positive)),
            f"{part}/pr": self._draw_lines(
                "Precision and recall", ["class", "recall", "precision"], trace_pr(*curves, judged.positive)
            ),
        }
        if "confusion" in judged.metrics:
            charts[f"{part}/confusion"] = self._session.draw_cells(
                list_cells(judged.metrics["confusion"], judged.classes)
            )
        if "confusion_per_class" in judged.metrics:
            rows = [[name, *no, *yes] for name, (no, yes) in judged.metrics["confusion_per_class"].items()]
            columns = ["class", "true negatives", "false positives", "false negatives", "true positives"]
            charts[f"{part}/confusion"] = self._wandb.Table(columns=columns, data=rows)
        self._run.log(charts)

    def log_image(self, name: str, path: Path) -> None:
        self._run.log({name: self._wandb.Image(str(path))})

    def log_pictures(self, name: str, pictures: Sequence[Picture]) -> None:
        rows = [
            [self._wandb.Image(each.pixels), each.label, each.prediction, each.probability, each.path]
            for each in pictures
        ]
        columns = ["picture", "label", "prediction", "probability", "path"]
        self._run.log({name: self._wandb.Table(columns=columns, data=rows)})

    def close(self, exit_code: int) -> None:
        self._session.close(exit_code)

    def _draw_lines(self, title: str, columns: list[str], rows: list[Any]) -> Any:
        """Return a W&B chart with a line for each class; columns: names of the class, x and y columns."""
        fields = dict(zip(("class", "x", "y"), columns, strict=True))
        texts = {"title": title, "x-axis-title": columns[1], "y-axis-title": columns[2]}
        table = self._wandb.Table(columns=columns, data=rows)
        return self._wandb.plot_table("wandb/area-under-curve/v0", table, fields, texts)


def choose_summary(name: str) -> Literal["max", "min"] | None:
    """Return which value summarises a series: max or min for a validation score, else None, the last value.

    >>> choose_summary("val/accuracy"), choose_summary("val/log_loss"), choose_summary("train/loss")
    ('max', 'min', None)
    """
    area, _, last = name.partition("/")
    if area != "val" or last in _NO_SCORES:
        return None
    return "min" if is_lower_better(last.partition(" (")[0]) else "max"


def clean_name(name: str) -> str:
    """Return a class name without characters that are special in W&B: globs and path separators.

    >>> clean_name("v1.0 * dust")
    'v1_0 _ dust'
    """
    return re.sub(r"[*.\\/]", "_", name)


def describe_identity(recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
    """Return what tells a run's data, recipe and code apart from those of others, for its config."""
    sha = read_git_sha()
    facts = {
        "dataset": dataset.fingerprint(),
        "num_shards": dataset.table.num_rows,
        "recipe_fingerprint": recipe.fingerprint(),
    }
    return facts | ({"git_sha": sha} if sha else {})
