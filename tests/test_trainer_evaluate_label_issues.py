"""Likely label mistakes: those that were made on purpose are found, and few others."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from trainer.evaluate.label_issues import find_label_issues, find_multi_label_issues


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


def learn_confidently(labels: list[int], probabilities: list[list[float]]) -> set[int]:
    """Confident learning as its paper and its authors' library have it, sample by sample: `confident_learning` of
    cleanlab's find_label_issues is the off-diagonal of the confident joint, without samples whose label is predicted.
    """
    num_classes = len(probabilities[0])
    means = {}
    for number in range(num_classes):
        own = [row[number] for row, label in zip(probabilities, labels, strict=True) if label == number]
        if own:
            means[number] = sum(own) / len(own)
    found = set()
    for sample, (row, label) in enumerate(zip(probabilities, labels, strict=True)):
        over = [number for number, mean in means.items() if row[number] >= mean - 1e-12]
        if over and max(over, key=row.__getitem__) != label and row.index(max(row)) != label:
            found.add(sample)
    return found


@pytest.mark.parametrize("shares", [(0.85, 0.10, 0.05), (0.5, 0.5), (0.97, 0.03), (0.25, 0.25, 0.25, 0.25)])
@pytest.mark.parametrize("spread", [1.3, 2.5])
def test_issues_are_those_of_confident_learning_for_classes_of_any_share(
    shares: tuple[float, ...], spread: float
) -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(len(shares), 1500, p=shares)
    logits = rng.normal(0, spread, (1500, len(shares))) + 2 * np.eye(len(shares))[labels] + np.log(shares)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = find_label_issues(labels, probabilities)
    assert set(found.tolist()) == learn_confidently(labels.tolist(), probabilities.tolist())
    assert len(found) > 0
    assert not (probabilities.argmax(axis=1) == labels)[found].any()


def test_a_label_that_the_model_gives_is_no_mistake_although_a_rare_class_reaches_its_mean() -> None:
    """The rare class has a mean of 0.3: 0.35 reaches it, and 0.65 for the label does not reach the 0.9 of its class."""
    labels = np.array([0] * 9 + [1])
    probabilities = np.array([[0.93, 0.07]] * 8 + [[0.65, 0.35], [0.7, 0.3]])
    assert find_label_issues(labels, probabilities).tolist() == []


def test_a_label_of_several_that_the_model_gives_is_no_mistake_either() -> None:
    labels = np.array([[0]] * 9 + [[1]])
    given = np.array([[0.07]] * 8 + [[0.35], [0.3]])
    assert find_multi_label_issues(labels, given).tolist() == []
