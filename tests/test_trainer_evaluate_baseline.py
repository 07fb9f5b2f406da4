"""What needs no model: the most frequent class, a random ranking; and which classes are taken for each other."""

from __future__ import annotations

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.metrics import average_precision_score

from trainer.contract.task import make_task
from trainer.evaluate.baseline import MOST_PAIRS, Confused, describe_baseline, find_baseline, list_confused
from trainer.evaluate.rows import Rows


def make_rows(task: str, labels: np.ndarray, logits: np.ndarray) -> Rows:
    count = len(labels)
    return Rows(
        make_task(task), np.arange(count), labels, logits.astype(np.float32), [f"{k}.png" for k in range(count)]
    )


def test_baseline_is_that_of_a_classifier_that_always_gives_the_most_frequent_class() -> None:
    labels = np.array([0] * 3 + [1] * 5 + [2] * 2)
    dummy = DummyClassifier(strategy="most_frequent").fit(np.zeros((10, 1)), labels)
    counts = dict(zip("abc", np.bincount(labels).tolist(), strict=True))
    found = find_baseline(counts, 10, "single-label", {"b": "乙"})
    assert found is not None
    assert (found.value, found.answer) == (dummy.score(np.zeros((10, 1)), labels), "always answering 乙")


def test_baseline_of_several_labels_is_the_precision_that_random_rankings_come_to() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random((4000, 3)) < [0.1, 0.3, 0.5]
    counts = dict(zip("abc", labels.sum(axis=0).tolist(), strict=True))
    found = find_baseline(counts, 4000, "multi-label")
    assert found is not None
    assert abs(found.value - average_precision_score(labels, rng.random((4000, 3)), average="macro")) < 0.02


def test_result_below_or_around_the_baseline_is_said_to_be() -> None:
    per_class = {"a": {"support": 7}, "b": {"support": 3}}

    def told(accuracy: float, low: float, high: float) -> str | None:
        bounds = {"accuracy": [low, high]}
        return describe_baseline({"accuracy": accuracy, "samples": 10, "per_class": per_class, "intervals": bounds})

    said = "always answering a would have accuracy 0.7000"
    assert told(0.9, 0.8, 1.0) == said
    assert told(0.75, 0.6, 0.9) == f"{said}, which lies in the interval: the model may be no better"
    assert told(0.4, 0.3, 0.5) == f"{said}, which is better: the model is worse than no model"


def test_pairs_that_are_confused_most_come_first_with_their_share() -> None:
    confusion = [[5, 3, 0], [0, 8, 0], [1, 3, 6]]
    per_class = {name: {"support": sum(row)} for name, row in zip("abc", confusion, strict=True)}
    labels = np.repeat(np.repeat(np.arange(3), 3), np.ravel(confusion))
    rows = make_rows("single-label", labels, np.zeros((len(labels), 3)))
    found = list_confused({"confusion": confusion, "per_class": per_class}, rows, ["甲", "乙", "丙"])
    assert found == [Confused("甲", "乙", 3, 3 / 8), Confused("丙", "乙", 3, 0.3), Confused("丙", "甲", 1, 0.1)]


def test_of_many_pairs_the_first_are_named() -> None:
    confusion = np.arange(400).reshape(20, 20)
    per_class = {str(k): {"support": int(confusion[k].sum())} for k in range(20)}
    rows = make_rows("single-label", np.zeros(1, np.int64), np.zeros((1, 20)))
    found = list_confused({"confusion": confusion.tolist(), "per_class": per_class}, rows, [str(k) for k in range(20)])
    assert [each.count for each in found] == list(range(398, 398 - MOST_PAIRS, -1))  # 399 is on the diagonal


def test_of_several_labels_a_missed_class_is_counted_with_each_that_was_given_in_its_place() -> None:
    labels = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 1]])
    logits = np.array([[-1, 2, -1], [-1, 2, 2], [-1, 1, 1]])
    per_class = {name: {"support": 2 if name == "a" else 1} for name in "abc"}
    found = list_confused({"per_class": per_class}, make_rows("multi-label", labels, logits), ["a", "b", "c"])
    assert found == [Confused("a", "b", 2, 1.0), Confused("a", "c", 1, 0.5)]
