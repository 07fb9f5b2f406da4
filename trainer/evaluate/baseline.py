"""What to compare a result with: the baseline without a model, and the classes that are confused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.contract.metrics import find_right, list_metrics
from trainer.evaluate.rows import Rows

MOST_PAIRS = 10
"""Pairs of classes that a report names."""


@dataclass(frozen=True)
class Baseline:
    """key: name of the metric; answer: what gives this value, to be followed by "would have"."""

    key: str
    value: float
    answer: str


@dataclass(frozen=True)
class Confused:
    """Pictures of the class `missed` that were given the class `given` instead; share: fraction of `missed`."""

    missed: str
    given: str
    count: int
    share: float


def find_baseline(
    counts: Mapping[str, int], samples: int, task: str, shown: Mapping[str, str] | None = None
) -> Baseline | None:
    """Return the headline metric's value without a model; None without pictures.

    With one label per picture, it is the accuracy of always answering the most frequent class. With several, it is the
    mean average precision of a random ranking: the mean share of the classes that occur.

    Args:
        counts: Number of pictures of each class.
        samples: Total number of pictures.
        task: `single-label` or `multi-label`.
        shown: Display names by class name.

    >>> find_baseline({"BAD": 279, "GOOD": 377}, 656, "single-label")
    Baseline(key='accuracy', value=0.5746951219512195, answer='always answering GOOD')
    >>> find_baseline({"cat": 5, "dog": 10, "ox": 0}, 20, "multi-label")
    Baseline(key='map', value=0.375, answer='a random ranking')
    """
    there = {name: count for name, count in counts.items() if count}
    if not there:
        return None
    key = list_metrics(task, "headline")[0].key
    if task == "multi-label":
        return Baseline(key, sum(there.values()) / len(there) / samples, "a random ranking")
    most = max(there, key=lambda name: there[name])
    return Baseline(key, there[most] / samples, f"always answering {(shown or {}).get(most, most)}")


def read_baseline(metrics: Mapping[str, Any], shown: Mapping[str, str] | None = None) -> Baseline | None:
    """Return the baseline from the class counts in metrics.json; None without pictures."""
    counts = {name: row["support"] for name, row in metrics["per_class"].items()}
    return find_baseline(counts, metrics["samples"], find_right(metrics).task, shown)


def describe_baseline(metrics: Mapping[str, Any], shown: Mapping[str, str] | None = None) -> str | None:
    """Return the baseline in words, and whether the result is significantly better; None without pictures.

    >>> of_bad = {"BAD": {"support": 3}, "GOOD": {"support": 7}}
    >>> metrics = {"accuracy": 0.8, "samples": 10, "intervals": {"accuracy": [0.6, 1.0]}, "per_class": of_bad}
    >>> describe_baseline(metrics)
    'always answering GOOD would have accuracy 0.7000, which lies in the interval: the model may be no better'
    """
    baseline = read_baseline(metrics, shown)
    if baseline is None or baseline.key not in metrics:
        return None
    name = next(row.name for row in list_metrics(find_right(metrics).task) if row.key == baseline.key)
    told = f"{baseline.answer} would have {name} {baseline.value:.4f}"
    low, high = metrics["intervals"].get(baseline.key, (metrics[baseline.key],) * 2)
    if low > baseline.value:
        return told
    if high < baseline.value:
        return f"{told}, which is better: the model is worse than no model"
    return f"{told}, which lies in the interval: the model may be no better"


def list_confused(metrics: Mapping[str, Any], rows: Rows, classes: list[str]) -> list[Confused]:
    """Return the pairs of classes that were confused most often, by number of pictures, at most `MOST_PAIRS`.

    With several labels, a pair counts if one class was missed and the other was predicted instead.
    """
    if rows.task.is_exclusive:
        table = np.array(metrics["confusion"])
    else:
        missed, extra = rows.labels > rows.predicted, rows.labels < rows.predicted
        table = missed.T.astype(np.float32) @ extra.astype(np.float32)  # NumPy multiplies integers slowly
    wrong = table * (1 - np.eye(len(table), dtype=table.dtype))
    support = [row["support"] for row in metrics["per_class"].values()]
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    pairs = zip(*(axis.tolist() for axis in np.unravel_index(order, wrong.shape)), strict=True)
    return [
        Confused(classes[true], classes[given], int(wrong[true, given]), float(wrong[true, given]) / support[true])
        for true, given in pairs
        if wrong[true, given]
    ]
