"""The numbers for charts of an evaluation: counts, and curves with few points."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Score = Callable[[int], Floats]
"""Class number -> float64[N], the class's scores of N samples."""

POINTS = 200
"""Points per curve; more cannot be distinguished on a screen."""
MOST_CLASSES = 20
"""Number of classes with curves: those with the most samples."""
MOST_CELLS = 10_000
"""Cells of a confusion matrix; the limit of W&B's tables."""


def list_cells(confusion: list[list[int]], classes: list[str]) -> list[list[str | int]]:
    """Return (actual, predicted, count) of every cell; above MOST_CELLS, only the largest non-zero cells."""
    counts = np.array(confusion)
    places = np.indices(counts.shape).reshape(2, -1).T
    if counts.size > MOST_CELLS:
        largest = np.argsort(-counts, axis=None, kind="stable")[:MOST_CELLS]
        places = places[largest[counts.ravel()[largest] > 0]]
    return [[classes[actual], classes[predicted], int(counts[actual, predicted])] for actual, predicted in places]


def trace_roc(
    labels: npt.NDArray[np.int64], score: Score, classes: list[str], positive: str | None = None
) -> list[list[str | float]]:
    """Return (class, false positive rate, true positive rate) of each class against the rest.

    Args:
        labels: int64[N] class numbers, or int64[N, K] of 0 and 1 with several labels.
        score: Returns the scores of a class; called only for classes with a curve.
        classes: K names; a class with no samples, or with all, has no curve.
        positive: With two classes, the only one with a curve; None: the second.
    """
    from sklearn import metrics as sk  # late: it takes seconds, and most processes never track

    rows: list[list[str | float]] = []
    for name, truth, scores in _each_class(labels, score, classes, positive):
        false, true, _ = sk.roc_curve(truth, scores)
        rows += [[name, x, y] for x, y in _thin(false, true)]
    return rows


def trace_pr(
    labels: npt.NDArray[np.int64], score: Score, classes: list[str], positive: str | None = None
) -> list[list[str | float]]:
    """Return (class, recall, precision) of each class against the rest; arguments as in `trace_roc`."""
    from sklearn import metrics as sk  # late: it takes seconds, and most processes never track

    rows: list[list[str | float]] = []
    for name, truth, scores in _each_class(labels, score, classes, positive):
        precision, recall, _ = sk.precision_recall_curve(truth, scores)
        rows += [[name, x, y] for x, y in _thin(recall, precision)]
    return rows


def _each_class(
    labels: npt.NDArray[np.int64], score: Score, classes: list[str], positive: str | None
) -> Iterator[tuple[str, npt.NDArray[np.bool_], Floats]]:
    truths = labels.astype(bool) if labels.ndim == 2 else labels[:, None] == np.arange(len(classes))
    support = truths.sum(axis=0)
    numbers = np.flatnonzero((support > 0) & (support < len(truths)))
    if len(classes) == 2 and labels.ndim == 1:
        numbers = numbers[numbers == classes.index(positive or classes[1])]
    for number in sorted(numbers[np.argsort(-support[numbers], kind="stable")][:MOST_CLASSES].tolist()):
        yield classes[number], truths[:, number], score(number)


def _thin(x: Floats, y: Floats) -> list[tuple[float, float]]:
    """Return at most POINTS points including both ends, evenly spaced along the curve's length."""
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    if len(x) <= POINTS:
        chosen = np.arange(len(x))
    else:
        chosen = np.unique(np.searchsorted(length, np.linspace(0, length[-1], POINTS)))
    return list(zip(x[chosen].tolist(), y[chosen].tolist(), strict=True))
