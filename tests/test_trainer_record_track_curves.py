"""The numbers that charts of an evaluation are drawn from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn import metrics as sk

from trainer.record.track.curves import MOST_CELLS, MOST_CLASSES, POINTS, list_cells, trace_pr, trace_roc


def draw(samples: int, classes: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels, probabilities that are right more often than not, and names."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, samples)
    logits = rng.normal(0, 1, (samples, classes)) + np.eye(classes)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), [f"c{k}" for k in range(classes)]


def by_class(scores: np.ndarray) -> Callable[[int], np.ndarray]:
    return lambda number: scores[:, number]


def line(rows: list[list[str | float]], name: str) -> np.ndarray:
    return np.array([row[1:] for row in rows if row[0] == name], dtype=float)


def test_roc_of_a_few_samples_is_that_of_their_order() -> None:
    """Scores .9 .8 .7 .6 with truths 1 0 1 0: up, right, up, right."""
    scores = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]])
    rows = trace_roc(np.array([1, 0, 1, 0]), by_class(scores), ["no", "yes"])
    assert rows == [["yes", 0.0, 0.0], ["yes", 0.0, 0.5], ["yes", 0.5, 0.5], ["yes", 0.5, 1.0], ["yes", 1.0, 1.0]]


@pytest.mark.parametrize("samples", [50, 20_000])
def test_thinned_curves_keep_ends_and_area(samples: int) -> None:
    labels, scores, names = draw(samples, 3)
    for number, name in enumerate(names):
        roc, pr = (line(trace(labels, by_class(scores), names), name) for trace in (trace_roc, trace_pr))
        truth = labels == number
        assert len(roc) <= POINTS
        assert len(pr) <= POINTS
        assert (roc[0].tolist(), roc[-1].tolist(), pr[-1].tolist()) == ([0, 0], [1, 1], [0, 1])
        assert np.trapezoid(roc[:, 1], roc[:, 0]) == pytest.approx(sk.roc_auc_score(truth, scores[:, number]), abs=2e-3)
        precision, recall, _ = sk.precision_recall_curve(truth, scores[:, number])
        assert -np.trapezoid(pr[:, 1], pr[:, 0]) == pytest.approx(sk.auc(recall, precision), abs=2e-3)


def test_class_without_samples_or_with_all_has_no_curve() -> None:
    labels, scores, names = draw(30, 3)
    assert {row[0] for row in trace_roc(labels % 2, by_class(scores), names)} == {"c0", "c1"}
    assert trace_roc(np.zeros_like(labels), by_class(scores), names) == []


def test_samples_of_several_labels_have_a_curve_for_each_class() -> None:
    labels = np.array([[1, 1], [0, 1], [1, 0], [0, 0]])
    rows = trace_roc(labels, by_class(labels.astype(float)), ["cat", "dog"])
    assert [row for row in rows if row[0] == "cat"] == [["cat", 0.0, 0.0], ["cat", 0.0, 1.0], ["cat", 1.0, 1.0]]
    assert {row[0] for row in rows} == {"cat", "dog"}


def test_of_many_classes_those_with_most_samples_are_traced() -> None:
    labels = np.concatenate([np.repeat(np.arange(MOST_CLASSES + 5), np.arange(1, MOST_CLASSES + 6))])
    scores = np.random.default_rng(0).random((len(labels), MOST_CLASSES + 5))
    traced = {row[0] for row in trace_roc(labels, by_class(scores), [str(k) for k in range(MOST_CLASSES + 5)])}
    assert traced == {str(k) for k in range(5, MOST_CLASSES + 5)}


def test_cells_are_those_of_the_matrix() -> None:
    assert list_cells([[3, 1], [0, 2]], ["a", "b"]) == [["a", "a", 3], ["a", "b", 1], ["b", "a", 0], ["b", "b", 2]]


def test_of_a_matrix_that_is_too_large_the_largest_cells_are_listed() -> None:
    side = 200
    counts = np.arange(side * side).reshape(side, side)
    cells = list_cells(counts.tolist(), [str(k) for k in range(side)])
    assert sorted((count for _, _, count in cells), reverse=True) == list(range(39_999, 39_999 - MOST_CELLS, -1))
    assert all(counts[int(actual), int(predicted)] == count for actual, predicted, count in cells)
