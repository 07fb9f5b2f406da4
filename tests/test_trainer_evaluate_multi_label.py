"""Metrics of several labels a picture, on rows whose values are known by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from trainer.contract.metrics import describe_headline, list_metrics
from trainer.contract.task import MANY_LABELS, ONE_LABEL
from trainer.evaluate.metrics.metrics import compute_metrics, select_scalars
from trainer.evaluate.metrics.rule import find_rule
from trainer.evaluate.rows import Rows
from trainer.evaluate.worst import find_worst

CLASSES = ["a", "b", "c"]
LABELS = np.array([[1, 0, 1], [1, 1, 0], [0, 0, 1], [0, 0, 0]])
# Said: a c (right), b (a is missing), a c (a is too much), nothing (right).
LOGITS = np.array([[2, -1, 1], [-1, 1, -2], [1, -3, 3], [-2, -2, -1]], dtype=np.float32)
ROWS = Rows(MANY_LABELS, np.arange(4), LABELS, LOGITS, [""] * 4)


def measure(labels: np.ndarray, logits: np.ndarray, classes: list[str]) -> dict[str, Any]:
    return compute_metrics(labels, logits, classes, find_rule(MANY_LABELS, classes))


def test_shares_of_right_answers_are_those_counted_by_hand() -> None:
    metrics = measure(LABELS, LOGITS, CLASSES)
    assert metrics["samples"] == 4
    assert metrics["subset_accuracy"] == pytest.approx(2 / 4)
    assert metrics["hamming_loss"] == pytest.approx(2 / 12)


def test_f1_is_of_each_class_then_averaged_or_of_all_answers_together() -> None:
    """a: one right, one missing, one too much; b and c all right: 4 right, 1 missing, 1 too much together."""
    metrics = measure(LABELS, LOGITS, CLASSES)
    assert metrics["macro_f1"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert metrics["micro_f1"] == pytest.approx(2 * 4 / (2 * 4 + 1 + 1))


def test_each_class_has_its_own_table_and_scores() -> None:
    metrics = measure(LABELS, LOGITS, CLASSES)
    assert metrics["confusion_per_class"] == {"a": [[1, 1], [1, 1]], "b": [[3, 0], [0, 1]], "c": [[2, 0], [0, 2]]}
    # a's scores in order: there, not, there, not. Precision where it is there: 1/1 and 2/3; of 4 pairs 3 are in order.
    scores = {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "average_precision": 5 / 6, "auroc": 3 / 4}
    assert metrics["per_class"]["a"] == pytest.approx({**scores, "support": 2})
    assert metrics["per_class"]["b"] == pytest.approx(dict.fromkeys(scores, 1.0) | {"support": 1})


def test_table_of_a_class_that_is_missed_and_of_one_that_is_made_up_are_told_apart() -> None:
    logits = np.array([[-1, 1], [-1, -1]], dtype=np.float32)
    tables = measure(np.array([[1, 0], [0, 0]]), logits, ["missed", "made up"])["confusion_per_class"]
    assert tables == {"missed": [[1, 0], [1, 0]], "made up": [[1, 1], [0, 0]]}


def test_scores_without_a_threshold_are_means_over_classes_or_of_all_answers_together() -> None:
    metrics = measure(LABELS, LOGITS, CLASSES)
    assert metrics["map"] == pytest.approx((5 / 6 + 1 + 1) / 3)
    assert metrics["auroc"] == pytest.approx((3 / 4 + 1 + 1) / 3)
    # Of 5 * 7 pairs of an answer yes and an answer no: 3 and 2 lead all seven, both 1s tie with one of them, and -1
    # leads four and ties with two.
    assert metrics["micro_auroc"] == pytest.approx((7 + 7 + 6.5 + 6.5 + 5) / 35)
    assert metrics["undefined"] == {}


def test_log_loss_is_the_mean_over_all_answers_and_not_cut_off() -> None:
    right, wrong = (2, 1, 1, 1, 2, 3, 3, 2, 2, 1), (1, 1)
    total = sum(math.log1p(math.exp(-z)) for z in right) + sum(math.log1p(math.exp(z)) for z in wrong)
    assert measure(LABELS, LOGITS, CLASSES)["log_loss"] == pytest.approx(total / 12)
    sure = np.array([[500.0, -500.0]], dtype=np.float32)
    assert measure(np.array([[0, 0]]), sure, ["a", "b"])["log_loss"] == pytest.approx(250.0)


def test_classes_without_samples_are_left_out_of_the_means_and_named() -> None:
    """b is in no picture and c in every one: no order of pictures can be judged by it."""
    labels = np.array([[1, 0, 1], [0, 0, 1]])
    metrics = measure(labels, np.array([[1, 1, 1], [-1, -1, 1]], dtype=np.float32), CLASSES)
    assert metrics["undefined"] == {"macro_f1": ["b"], "map": ["b"], "auroc": ["b", "c"]}
    assert (metrics["macro_f1"], metrics["map"], metrics["auroc"]) == (1, 1, 1)
    assert (metrics["per_class"]["b"]["average_precision"], metrics["per_class"]["c"]["auroc"]) == (None, None)


def test_part_where_no_picture_has_a_label_has_no_scores_of_them() -> None:
    metrics = measure(np.zeros((3, 2), dtype=np.int64), np.full((3, 2), -1, np.float32), ["a", "b"])
    plain = {metric.key for metric in list_metrics("multi-label") if metric.needs == "nothing"}
    assert set(select_scalars(metrics)) == {"samples", *plain}
    assert plain.isdisjoint({"map", "macro_f1", "auroc", "micro_auroc"})
    assert metrics["subset_accuracy"] == 1


def test_probability_of_one_half_counts_as_there() -> None:
    logits = np.array([[0.0, -1e-6]], dtype=np.float32)
    assert measure(np.array([[1, 0]]), logits, ["a", "b"])["subset_accuracy"] == 1


def test_probabilities_are_those_of_each_class_alone() -> None:
    assert ROWS.probabilities[0].tolist() == pytest.approx([1 / (1 + math.exp(-z)) for z in (2, -1, 1)])
    assert Rows(ONE_LABEL, ROWS.ids, LABELS[:, 0], LOGITS, ROWS.sources).probabilities.sum(
        axis=1
    ).tolist() == pytest.approx([1] * 4)


def test_rows_are_told_in_the_words_of_a_packed_list() -> None:
    assert ROWS.name_answers(CLASSES) == (["a;c", "a;b", "c", ""], ["a;c", "b", "a;c", ""])
    single = Rows(ONE_LABEL, np.arange(2), np.array([2, 0]), LOGITS[:2], ["", ""])
    assert single.name_answers(CLASSES) == (["c", "a"], ["a", "b"])


def test_worst_pictures_are_wrong_ones_with_the_largest_loss_first() -> None:
    assert find_worst(ROWS).tolist() == [1, 2]
    flipped = Rows(
        MANY_LABELS, ROWS.ids, LABELS, LOGITS * np.array([[1], [1], [3], [1]], dtype=np.float32), ROWS.sources
    )
    assert find_worst(flipped).tolist() == [2, 1]


def test_result_is_told_by_what_it_has() -> None:
    assert describe_headline(measure(LABELS, LOGITS, CLASSES)) == (
        "mAP 0.9444, macro F1 0.8333, all labels right 0.5000"
    )
    assert describe_headline({"accuracy": 0.5}) == "accuracy 0.5000"
