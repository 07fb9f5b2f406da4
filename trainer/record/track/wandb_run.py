"""A run in Weights & Biases, with charts and tables of pictures; the only module that uses wandb."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from shards.dataset.dataset import Dataset
from shards.files.atomic import write_text
from trainer.contract.metrics import is_lower_better, name_figures
from trainer.recipes.options.run import TrackOptions
from trainer.recipes.place import show_locations
from trainer.recipes.recipe import Recipe
from trainer.record.code import read_git_sha
from trainer.record.logbook import Numbers

if TYPE_CHECKING:
    from trainer.record.track.curves import Score

RUN_ID = "wandb-id"
"""File in the run folder with its W&B id."""
_DATA_DIR = "WANDB_DATA_DIR"
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
        import wandb  # late: it takes seconds, and most processes never track

        self._wandb: Any = wandb
        self._defined: set[str] = set()
        self._data_dir_is_ours = _DATA_DIR not in os.environ
        if self._data_dir_is_ours:
            # Tables for `wandb sync` are stored here, not in the home folder of a node that may disappear.
            os.environ[_DATA_DIR] = str(run_dir / "wandb" / "data")
        try:
            self._run: Any = self._begin(recipe, run_dir, dataset, num_ranks, mode)
        except Exception:
            self._end_service()  # it would reject the same run id on a retry
            self._forget_data_dir()
            raise

    def _begin(self, recipe: Recipe, run_dir: Path, dataset: Dataset, num_ranks: int, mode: Any) -> Any:
        from wandb.sdk.lib.import_hooks import unregister_all_post_import_hooks

        options = recipe.track
        with _hiding_keys_of_command():
            run = self._wandb.init(
                project=options.project,
                group=options.group,
                job_type=options.job_type or ("trial" if options.group else "train"),
                name=recipe.name,
                tags=options.tags,
                id=claim_run_id(run_dir, recipe.name),
                resume="allow" if mode == "online" else None,
                mode=mode,
                dir=run_dir,
                config={**recipe.describe(), **_describe(dataset), "world_size": num_ranks},
                settings=self._wandb.Settings(console="off", silent=True),
            )
        # W&B's import hooks report imported libraries to its service; if that has died, imports would fail.
        unregister_all_post_import_hooks()
        run.define_metric("*", step_metric="epoch")
        run.define_metric("step/*", step_metric="step")
        return run

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
            charts[f"{part}/confusion"] = self._draw_cells(list_cells(judged.metrics["confusion"], judged.classes))
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
        try:
            self._run.finish(exit_code=exit_code)
        except Exception:
            self._end_service()  # a dead service would otherwise cause a traceback when Python exits
            raise
        finally:
            self._forget_data_dir()

    def _end_service(self) -> None:
        with contextlib.suppress(Exception):
            self._wandb.teardown()

    def _forget_data_dir(self) -> None:
        if self._data_dir_is_ours:
            os.environ.pop(_DATA_DIR, None)

    def _draw_lines(self, title: str, columns: list[str], rows: list[Any]) -> Any:
        """Return a W&B chart with a line for each class; columns: names of the class, x and y columns."""
        fields = dict(zip(("class", "x", "y"), columns, strict=True))
        texts = {"title": title, "x-axis-title": columns[1], "y-axis-title": columns[2]}
        table = self._wandb.Table(columns=columns, data=rows)
        return self._wandb.plot_table("wandb/area-under-curve/v0", table, fields, texts)

    def _draw_cells(self, rows: list[Any]) -> Any:
        """Return W&B's chart of a confusion matrix."""
        columns = ["Actual", "Predicted", "nPredictions"]
        table = self._wandb.Table(columns=columns, data=rows)
        texts = {"title": "Confusion matrix"}
        return self._wandb.plot_table("wandb/confusion_matrix/v1", table, {name: name for name in columns}, texts)


@contextlib.contextmanager
def _hiding_keys_of_command() -> Iterator[None]:
    """Hide keys in the command line, which W&B records."""
    words = sys.argv
    sys.argv = show_locations(words)
    try:
        yield
    finally:
        sys.argv = words


def choose_mode(options: TrackOptions) -> str:
    """Return online, offline or disabled; auto is offline when no key is set. WANDB_MODE takes precedence."""
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    if options.wandb != "auto":
        return options.wandb
    return "online" if os.environ.get("WANDB_API_KEY") else "offline"


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


def claim_run_id(run_dir: Path, name: str) -> str:
    """Return the run's W&B id, created at its first start and reused at every restart."""
    path = run_dir / RUN_ID
    if not path.is_file():
        # Random, because a run deleted and started again under the same name is a new run for the server.
        write_text(path, f"{re.sub('[^A-Za-z0-9._=-]', '-', name)[:100]}-{secrets.token_hex(4)}")
    return path.read_text(encoding="utf-8")


def _describe(dataset: Dataset) -> dict[str, Any]:
    sha = read_git_sha()
    facts = {"dataset": dataset.fingerprint(), "num_shards": dataset.table.num_rows}
    return facts | ({"git_sha": sha} if sha else {})
