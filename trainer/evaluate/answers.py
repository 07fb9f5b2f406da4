"""An evaluation in words: what each row says, and the result in a line."""

from __future__ import annotations

from typing import Any

from trainer.contract.metrics import find_right, is_of_positive, list_metrics
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


def describe_of_positive(metrics: dict[str, Any]) -> str | None:
    """Return the numbers that another positive class would change, with that class; None where no class is positive.

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
