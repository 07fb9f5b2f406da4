"""An evaluation in words: labels and predictions of rows, and a one-line result."""

from __future__ import annotations

from typing import Any

from trainer.contract.metrics import find_right, is_of_positive, list_metrics
from trainer.evaluate.rows import Rows


def name_answers(rows: Rows, classes: list[str]) -> tuple[list[str], list[str]]:
    """Return the true and the predicted labels of each row as text; several are joined, none give ""."""
    return rows.task.name_labels(rows.labels, classes), rows.task.name_labels(rows.predicted, classes)


def describe_headline(metrics: dict[str, Any]) -> str:
    """Return the headline metrics, each followed by its 95 % interval if it has one.

    >>> describe_headline({"subset_accuracy": 0.5, "map": 0.75, "intervals": {"map": [0.7, 0.8]}})
    'mAP 0.7500 [0.7000, 0.8000], all labels right 0.5000'
    """
    told = list_metrics(find_right(metrics).task, "headline")
    shown = [f"{each.name} {metrics[each.key]:.4f}{_bound(metrics, each.key)}" for each in told if each.key in metrics]
    return ", ".join(shown)


def describe_of_positive(metrics: dict[str, Any]) -> str | None:
    """Return the metrics that depend on the positive class, with its name; None if no class is positive.

    >>> describe_of_positive({"accuracy": 0.5, "sensitivity": 0.75, "positive": "BAD", "per_class": {"BAD": {}}})
    'sensitivity (BAD) 0.7500'
    """
    positive, count = metrics.get("positive"), len(metrics.get("per_class", ()))
    of_one = [each for each in list_metrics(find_right(metrics).task) if is_of_positive(each.key, count)]
    told = [
        f"{each.spelt.partition(' (')[0] or each.name} ({positive}) {metrics[each.key]:.4f}{_bound(metrics, each.key)}"
        for each in of_one
        if each.key in metrics
    ]
    return ", ".join(told) if positive is not None and told else None


def _bound(metrics: dict[str, Any], name: str) -> str:
    bounds = metrics.get("intervals", {}).get(name)
    return f" [{bounds[0]:.4f}, {bounds[1]:.4f}]" if bounds else ""
