"""Metrics of a classifier, computed once from per-sample rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.contract.metrics import list_metrics, load_builder
from trainer.evaluate.metrics.many_labels import ManyLabelsScored
from trainer.evaluate.metrics.one_label import OneLabelScored
from trainer.evaluate.metrics.rule import Rule
from trainer.evaluate.metrics.scored import Scored

_SCORED: dict[str, type[Scored]] = {"single-label": OneLabelScored, "multi-label": ManyLabelsScored}


def compute_metrics(
    labels: npt.NDArray[np.int64], logits: npt.NDArray[np.float32], classes: list[str], rule: Rule
) -> dict[str, Any]:
    """Return the metrics of logits float32[N, K] against labels as of the rule's task, without intervals.

    First the number of samples and the single numbers, those of the task in the table `trainer.contract.metrics`, then
    the tables of `Scored.tabulate`. Means over classes are over those with samples. A figure that these samples do not
    define is absent, and `notes` or `undefined` say why.
    """
    scored = _score(labels, logits, classes, rule)
    values = _compute(scored)
    result = {name: value for name, value in values.items() if not isinstance(value, str)}
    notes = {name: value for name, value in values.items() if isinstance(value, str)}
    return result | ({"notes": notes} if notes else {}) | scored.tabulate()


def compute_scalars(
    labels: npt.NDArray[np.int64], logits: npt.NDArray[np.float32], classes: list[str], rule: Rule
) -> dict[str, float]:
    """Return the single numbers of `compute_metrics` alone, which cost far less than its tables where classes are many."""
    return select_scalars(_compute(_score(labels, logits, classes, rule)))


def _score(labels: npt.NDArray[np.int64], logits: npt.NDArray[np.float32], classes: list[str], rule: Rule) -> Scored:
    return _SCORED[rule.task.name](labels, logits, classes, rule)


def _compute(scored: Scored) -> dict[str, int | float | str]:
    """Return the number of samples and each metric of the task, or why these samples do not define it."""
    values: dict[str, int | float | str] = {"samples": len(scored.labels)}
    for metric in list_metrics(scored.rule.task.name):
        if metric.needs == "positive class" and scored.rule.positive is None:
            continue
        value = load_builder(metric.builder)(scored)
        if value is not None:
            values[metric.key] = value
    return values


def select_scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the metrics that are single numbers."""
    return {name: float(value) for name, value in metrics.items() if isinstance(value, (int, float))}
