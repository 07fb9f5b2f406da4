"""Metrics on rows whose values are known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trainer.evaluation.metrics import compute_metrics, select_scalars, softmax

LABELS = np.array([0, 0, 0, 1, 1, 2])
# Predictions 0 0 1 1 1 0: class 2 is never predicted.
LOGITS = np.array([[3, 0, 0], [2, 1, 0], [0, 1, 0], [0, 4, 1], [0, 2, 0], [1, 0, 0.5]], dtype=np.float32)


def test_accuracy_recall_precision_and_confusion_are_those_counted_by_hand() -> None:
    metrics = compute_metrics(LABELS, LOGITS, ["a", "b", "c"])
    assert metrics["confusion"] == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    assert metrics["balanced_accuracy"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert metrics["per_class"]["a"] == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3})
    assert metrics["per_class"]["c"] == pytest.approx({"precision": 0, "recall": 0, "f1": 0, "support": 1})


def test_log_loss_of_equal_logits_is_the_logarithm_of_the_number_of_classes() -> None:
    metrics = compute_metrics(np.array([0, 1]), np.zeros((2, 4), np.float32), list("abcd"))
    assert metrics["log_loss"] == pytest.approx(math.log(4))


def test_log_loss_of_a_sure_mistake_is_its_margin_and_not_cut_off() -> None:
    logits = np.array([[500.0, 0.0], [500.0, 0.0]], dtype=np.float32)
    assert compute_metrics(np.array([1, 0]), logits, ["a", "b"])["log_loss"] == pytest.approx(250.0)


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    # Scores of class 1: positives 3 and 1, negatives 2 and 0: three of four pairs are in order.
    logits = np.array([[0, 3], [0, 1], [0, 2], [0, 0]], dtype=np.float32)
    assert compute_metrics(np.array([1, 1, 0, 0]), logits, ["a", "b"])["auroc"] == pytest.approx(3 / 4)


def test_a_part_without_samples_of_a_class_has_no_auroc_and_leaves_the_class_out_of_the_means() -> None:
    metrics = compute_metrics(np.array([0, 0]), np.array([[2, 0], [0, 2]], dtype=np.float32), ["a", "b"])
    assert "auroc" not in metrics
    assert metrics["balanced_accuracy"] == pytest.approx(0.5)


def test_probabilities_sum_to_one_for_any_logits() -> None:
    logits = np.array([[1e4, -1e4, 0.0], [-3e38, 0, 3e38]], dtype=np.float32)
    assert softmax(logits).sum(axis=1).tolist() == pytest.approx([1, 1])


def test_scalars_are_the_numbers_without_the_tables() -> None:
    names = set(select_scalars(compute_metrics(LABELS, LOGITS, ["a", "b", "c"])))
    assert names == {"samples", "accuracy", "balanced_accuracy", "macro_f1", "log_loss", "auroc"}
