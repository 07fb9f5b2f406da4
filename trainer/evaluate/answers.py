"""An evaluation in words: what each row says, and the result in a line."""

from __future__ import annotations

from typing import Any

from trainer.contract.metrics import find_right, list_metrics
from trainer.evaluate.rows import Rows


def name_answers(rows: Rows, classes: list[str]) -> tuple[list[str], list[str]]:
    """Return for each row its labels and those that the model gives; several are joined, none are empty."""
    return rows.task.name_labels(rows.labels, classes), rows.task.name_labels(rows.predicted, classes)


def describe_headline(metrics: dict[str, Any]) -> str:
    """Return the numbers by which a result is told first, the 95 % interval of each that has one behind it.

    >>> describe_headline({"subset_accuracy": 0.5, "map": 0.75, "intervals": {"map": [0.7, 0.8]}})
    'mAP 0.7500 [0.7000, 0.8000], all labels right 0.5000'
    """
    told = list_metrics(find_right(metrics).task, "headline")
    shown = [f"{each.name} {metrics[each.key]:.4f}{_bound(metrics, each.key)}" for each in told if each.key in metrics]
    return ", ".join(shown)


def _bound(metrics: dict[str, Any], name: str) -> str:
    bounds = metrics.get("intervals", {}).get(name)
    return f" [{bounds[0]:.4f}, {bounds[1]:.4f}]" if bounds else ""
