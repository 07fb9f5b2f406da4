"""Metrics of a classifier, computed once from per-sample rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from shards.cli.table import load_builder
from trainer.contract.metrics import list_metrics
from trainer.evaluate.metrics.rule import Rule, Scored

_SCORED = {
    "single-label": "trainer.evaluate.metrics.one_label:OneLabelScored",
    "multi-label": "trainer.evaluate.metrics.many_labels:ManyLabelsScored",
}
"""Imported late, like the functions of the table."""


def compute_metrics(
    labels: npt.NDArray[np.int64], logits: npt.NDArray[np.float32], classes: list[str], rule: Rule
) -> dict[str, Any]:
    """Return the metrics of logits float32[N, K] against labels in the form of the rule's task, without intervals.

    First the number of samples and the task's single numbers from the table `trainer.contract.metrics`, then the tables
    of `Scored.tabulate`. Means over classes use classes with samples. A metric that these samples do not define is
    absent, and `notes` or `undefined` has the reason.
    """
    scored = _score(labels, logits, classes, rule)
    values = _compute(scored)
    result = {name: value for name, value in values.items() if not isinstance(value, str)}
    notes = {name: value for name, value in values.items() if isinstance(value, str)}
    return result | ({"notes": notes} if notes else {}) | scored.tabulate()


def compute_scalars(
    labels: npt.NDArray[np.int64], logits: npt.NDArray[np.float32], classes: list[str], rule: Rule
) -> dict[str, float]:
    """Return only the single numbers of `compute_metrics`, which for many classes are far cheaper than its tables."""
    return select_scalars(_compute(_score(labels, logits, classes, rule)))


def _score(labels: npt.NDArray[np.int64], logits: npt.NDArray[np.float32], classes: list[str], rule: Rule) -> Scored:
    scored: Scored = load_builder(_SCORED[rule.task.name])(labels, logits, classes, rule)
    return scored


def _compute(scored: Scored) -> dict[str, int | float | str]:
    """Return the number of samples and each metric of the task, or why it is undefined for these samples."""
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
