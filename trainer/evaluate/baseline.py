"""What a result is held against: the answer that needs no model, and the classes that are taken for each other."""

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
    """key: metric that it is a value of; answer: who has it, to go on with "would have"."""

    key: str
    value: float
    answer: str


@dataclass(frozen=True)
class Confused:
    """Pictures of the class `missed` that were given the class `given` instead; share: of those of `missed`."""

    missed: str
    given: str
    count: int
    share: float


def find_baseline(
    counts: Mapping[str, int], samples: int, task: str, shown: Mapping[str, str] | None = None
) -> Baseline | None:
    """Return what the headline metric is without a model; None without pictures.

    Of one label a picture, it is the accuracy of always answering the most frequent class. Of several, it is the mean
    average precision of a random ranking: the mean share of the classes that some pictures have.

    Args:
        counts: Pictures of each class.
        samples: Pictures in all.
        task: `single-label` or `multi-label`.
        shown: What classes are called, by name.

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
    """Return the baseline of what metrics.json holds, by its own counts; None without pictures."""
    counts = {name: row["support"] for name, row in metrics["per_class"].items()}
    return find_baseline(counts, metrics["samples"], find_right(metrics).task, shown)


def describe_baseline(metrics: Mapping[str, Any], shown: Mapping[str, str] | None = None) -> str | None:
    """Return the baseline in words, and whether the result is surely better; None without pictures.

    >>> of_bad = {"BAD": {"support": 3}, "GOOD": {"support": 7}}
    >>> metrics = {"accuracy": 0.8, "samples": 10, "intervals": {"accuracy": [0.6, 1.0]}, "per_class": of_bad}
    >>> describe_baseline(metrics)
    'always answering GOOD would have accuracy 0.7000, which lies in the interval: the model may have learnt no more'
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
        return f"{told}, which is better: the model is worse than none"
    return f"{told}, which lies in the interval: the model may have learnt no more"


def list_confused(metrics: Mapping[str, Any], rows: Rows, classes: list[str]) -> list[Confused]:
    """Return the pairs of classes that were most often confused, by the number of pictures, at most `MOST_PAIRS`.

    Where pictures have several labels, one class of the picture was not given, and another one was in its place.
    """
    if rows.task.is_exclusive:
        table = np.array(metrics["confusion"])
    else:
        missed, extra = rows.labels > rows.predicted, rows.labels < rows.predicted
        table = missed.T.astype(np.float32) @ extra.astype(np.float32)  # of integers NumPy multiplies slowly
    wrong = table * (1 - np.eye(len(table), dtype=table.dtype))
    support = [row["support"] for row in metrics["per_class"].values()]
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    pairs = zip(*(axis.tolist() for axis in np.unravel_index(order, wrong.shape)), strict=True)
    return [
        Confused(classes[true], classes[given], int(wrong[true, given]), float(wrong[true, given]) / support[true])
        for true, given in pairs
        if wrong[true, given]
    ]
