"""Likely label mistakes: those that were made on purpose are found, and few others."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from trainer.evaluate.label_issues import find_label_issues


def test_a_sample_between_the_thresholds_is_no_issue() -> None:
    """Thresholds are the mean confidence of each class, 0.7 for both: 0.6 for the other class is below."""
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[1.0, 0.0], [0.4, 0.6], [0.2, 0.8], [0.4, 0.6]])
    assert find_label_issues(labels, probabilities).tolist() == []


def test_the_surest_mistake_comes_first() -> None:
    labels = np.array([0] * 8 + [1] * 8)
    right = [[0.9, 0.1]] * 6 + [[0.15, 0.85], [0.01, 0.99]] + [[0.1, 0.9]] * 6 + [[0.95, 0.05], [0.85, 0.15]]
    assert find_label_issues(labels, np.array(right)).tolist() == [7, 14, 6, 15]


def test_a_class_that_nobody_bears_is_never_the_better_label() -> None:
    labels = np.array([0, 0, 1])
    probabilities = np.array([[0.6, 0.0, 0.4], [0.1, 0.0, 0.9], [0.0, 1.0, 0.0]])
    assert find_label_issues(labels, probabilities).tolist() == []


@pytest.mark.parametrize("share", [0.05, 0.15])
def test_labels_that_were_changed_are_found(share: float) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=1200)
    points = rng.normal(0, 1, (1200, 2)) + 4 * np.array([[0, 0], [1, 0], [0, 1]])[truth]
    changed = rng.random(1200) < share
    labels = np.where(changed, (truth + rng.integers(1, 3, 1200)) % 3, truth)
    probabilities = cross_val_predict(LogisticRegression(), points, labels, method="predict_proba", cv=5)
    issues = find_label_issues(labels, probabilities)
    assert changed[issues].mean() > 0.75
    assert np.isin(np.flatnonzero(changed), issues).mean() > 0.5  # thresholds are means: what is near them is left out
    assert changed[issues[: len(issues) // 4]].mean() > 0.95
