"""The parts of an evaluation that differ by task: intervals and figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.contract.task import Task
from trainer.evaluate.figures.figures import draw_confusion
from trainer.evaluate.figures.fonts import Lettering
from trainer.evaluate.figures.score_figures import draw_reliability, draw_scores, draw_thresholds
from trainer.evaluate.metrics.intervals import Answers, compute_intervals
from trainer.evaluate.metrics.resampling import Units
from trainer.evaluate.metrics.rule import Rule
from trainer.evaluate.predictions import Predictions

Ints = npt.NDArray[np.int64]
Drawing = Callable[[Path], None]

FIGURES = ("confusion.png", "confusion_normalised.png", "curves.png", "reliability.png", "thresholds.png")


@dataclass(frozen=True)
class Kind:
    """bound: `interval` and `intervals` of predictions; draw: functions that draw figures of FIGURES to a path."""

    bound: Callable[[Predictions, Ints, Rule, Units], dict[str, Any]]
    draw: Callable[[Predictions, dict[str, Any], Lettering, Rule], dict[str, Drawing]]


def find_kind(task: Task) -> Kind:
    """Return the task-specific parts of an evaluation."""
    return _KINDS[task.name]


def _bound_one_label(predictions: Predictions, predicted: Ints, rule: Rule, units: Units) -> dict[str, Any]:
    answers = Answers(predictions.labels, predicted, predictions.logits)
    return compute_intervals(answers, predictions.classes, rule, units)


def _bound_many_labels(predictions: Predictions, predicted: Ints, _: Rule, units: Units) -> dict[str, Any]:
    from trainer.evaluate.metrics.multi_label_intervals import compute_multi_label_intervals  # late: for these alone

    given = predictions.labels, predictions.logits, predicted
    return compute_multi_label_intervals(*given, predictions.classes, units)


def _draw_one_label(
    predictions: Predictions, result: dict[str, Any], lettering: Lettering, rule: Rule
) -> dict[str, Drawing]:
    labels, probabilities, confusion = predictions.labels, predictions.probabilities, np.array(result["confusion"])
    return {
        "confusion.png": lambda path: draw_confusion(path, confusion, lettering),
        "confusion_normalised.png": lambda path: draw_confusion(path, confusion, lettering, normalised=True),
        "curves.png": lambda path: draw_scores(path, labels, predictions.logits, lettering, rule),
        "reliability.png": lambda path: draw_reliability(path, labels, probabilities),
        "thresholds.png": lambda path: draw_thresholds(path, labels, probabilities, lettering, rule),
    }


def _draw_many_labels(
    predictions: Predictions, result: dict[str, Any], lettering: Lettering, rule: Rule
) -> dict[str, Drawing]:
    from trainer.evaluate.figures.multi_label_figures import draw_confusions  # late: for these alone

    confusions = np.array(list(result["confusion_per_class"].values()))
    labels = predictions.labels
    return {
        "confusion.png": lambda path: draw_confusions(path, confusions, lettering),
        "curves.png": lambda path: draw_scores(path, labels, predictions.logits, lettering, rule),
    }


_KINDS = {
    "single-label": Kind(_bound_one_label, _draw_one_label),
    "multi-label": Kind(_bound_many_labels, _draw_many_labels),
}
