"""Metrics on rows whose values are known by hand."""

from __future__ import annotations

import json
import math
import tracemalloc
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from shards.errors import UsageError
from trainer.contract.task import MANY_LABELS, ONE_LABEL
from trainer.evaluate.metrics import blocks
from trainer.evaluate.metrics.log_odds import LogOdds
from trainer.evaluate.metrics.metrics import compute_metrics, compute_scalars, select_scalars
from trainer.evaluate.metrics.one_label import SPECIFICITIES
from trainer.evaluate.metrics.ranking import measure_areas, rank_scores, sweep_thresholds
from trainer.evaluate.metrics.rule import Rule, find_rule

LABELS = np.array([0, 0, 0, 1, 1, 2])
# Predictions 0 0 1 1 1 0: class 2 is never predicted.
LOGITS = np.array([[3, 0, 0], [2, 1, 0], [0, 1, 0], [0, 4, 1], [0, 2, 0], [1, 0, 0.5]], dtype=np.float32)


def measure(labels: np.ndarray, logits: np.ndarray, classes: list[str]) -> dict[str, Any]:
    return compute_metrics(labels, logits, classes, find_rule(ONE_LABEL, classes))


def test_accuracy_recall_precision_and_confusion_are_those_counted_by_hand() -> None:
    metrics = measure(LABELS, LOGITS, ["a", "b", "c"])
    assert metrics["confusion"] == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    assert metrics["balanced_accuracy"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert pick(metrics, "a") == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3})
    assert pick(metrics, "c") == pytest.approx({"precision": 0, "recall": 0, "f1": 0, "support": 1})
    assert metrics["per_class"]["a"]["specificity"] == pytest.approx(2 / 3)


def pick(metrics: dict[str, Any], name: str) -> dict[str, float]:
    return {key: metrics["per_class"][name][key] for key in ("precision", "recall", "f1", "support")}


def test_log_loss_of_equal_logits_is_the_logarithm_of_the_number_of_classes() -> None:
    metrics = measure(np.array([0, 1]), np.zeros((2, 4), np.float32), list("abcd"))
    assert metrics["log_loss"] == pytest.approx(math.log(4))


def test_log_loss_of_a_sure_mistake_is_its_margin_and_not_cut_off() -> None:
    logits = np.array([[500.0, 0.0], [500.0, 0.0]], dtype=np.float32)
    assert measure(np.array([1, 0]), logits, ["a", "b"])["log_loss"] == pytest.approx(250.0)


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    # Scores of class 1: positives 3 and 1, negatives 2 and 0: three of four pairs are in order.
    logits = np.array([[0, 3], [0, 1], [0, 2], [0, 0]], dtype=np.float32)
    assert measure(np.array([1, 1, 0, 0]), logits, ["a", "b"])["auroc"] == pytest.approx(3 / 4)


def test_what_one_class_alone_does_not_define_is_absent_with_a_reason() -> None:
    metrics = measure(np.array([0, 0]), np.array([[2, 0], [0, 2]], dtype=np.float32), ["a", "b"])
    assert metrics["balanced_accuracy"] == pytest.approx(0.5)
    assert metrics["specificity"] == pytest.approx(0.5)
    absent = {"auroc", "auprc", "mcc", "kappa", "sensitivity", *SPECIFICITIES}
    assert set(metrics["notes"]) == absent
    assert absent & metrics.keys() == set()
    assert metrics["notes"]["auroc"] == "1 of 2 classes have no samples here"
    json.dumps(metrics, allow_nan=False)


def test_probabilities_sum_to_one_for_any_logits() -> None:
    logits = np.array([[1e4, -1e4, 0.0], [-3e38, 0, 3e38]], dtype=np.float32)
    assert ONE_LABEL.compute_probabilities(logits).sum(axis=1).tolist() == pytest.approx([1, 1])


@dataclass(frozen=True)
class Judged:
    labels: np.ndarray
    logits: np.ndarray
    rule: Rule
    predicted: np.ndarray
    metrics: dict[str, Any]

    @property
    def num_classes(self) -> int:
        return self.logits.shape[1]


def judge(num_classes: int, positive: str | None = None, threshold: float | None = None, samples: int = 400) -> Judged:
    """Random rows with many ties."""
    rng = np.random.default_rng(num_classes)
    labels = rng.integers(0, num_classes, samples)
    logits = rng.normal(size=(samples, num_classes)).round(1).astype(np.float32)
    logits[np.arange(samples), labels] += 1
    classes = [f"c{number}" for number in range(num_classes)]
    rule = find_rule(ONE_LABEL, classes, positive, threshold)
    metrics = compute_metrics(labels, logits, classes, rule)
    return Judged(labels, logits, rule, rule.predict(logits, ONE_LABEL.compute_probabilities(logits)), metrics)


def test_specificity_of_nine_in_ten_may_be_exactly_that() -> None:
    # One negative of ten above every positive, and all the others below them.
    labels = np.array([0, 1, 1, *[0] * 9])
    logits = np.stack([np.zeros(12), np.arange(12.0)[::-1]], axis=1).astype(np.float32)
    metrics = measure(labels, logits, ["a", "b"])
    assert (metrics["sensitivity_at_specificity_90"], metrics["sensitivity_at_specificity_95"]) == (1.0, 0.0)


def test_calibration_error_is_that_of_two_bins_by_hand() -> None:
    # Confidence 0.9 and right 2 of 4 times; confidence 0.6 and right 1 of 1: (4 * 0.4 + 1 * 0.4) / 5.
    logits = np.log(np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]])).astype(np.float32)
    metrics = measure(np.array([0, 0, 1, 1, 1]), logits, ["a", "b"])
    assert metrics["ece"] == pytest.approx(0.4)


def test_calibration_error_of_honest_probabilities_is_small_and_of_boasted_ones_large() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 3)).astype(np.float32)
    labels = (ONE_LABEL.compute_probabilities(logits).cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1)
    honest, boasted = (measure(labels, logits * scale, list("abc")) for scale in (1, 3))
    assert honest["ece"] < 0.02 < 0.1 < boasted["ece"]
    assert honest["accuracy"] == boasted["accuracy"]


@pytest.mark.parametrize(("positive", "threshold"), [("c0", 0.3), ("c1", 0.7)])
def test_threshold_is_on_the_probability_of_the_positive_class(positive: str, threshold: float) -> None:
    judged = judge(2, positive, threshold)
    scores = ONE_LABEL.compute_probabilities(judged.logits)[:, judged.rule.positive]
    truth = judged.labels == judged.rule.positive
    assert judged.metrics["sensitivity"] == pytest.approx(sk.recall_score(truth, scores >= threshold))
    assert judged.metrics["specificity"] == pytest.approx(sk.recall_score(~truth, scores < threshold))
    assert judged.metrics["auroc"] == pytest.approx(sk.roc_auc_score(truth, scores))


def test_below_the_threshold_the_best_of_the_other_classes_is_predicted() -> None:
    judged = judge(4, "c2", 0.6)
    scores = ONE_LABEL.compute_probabilities(judged.logits)
    best = np.where(np.arange(4) == 2, -1, scores).argmax(axis=1)
    assert judged.predicted.tolist() == np.where(scores[:, 2] >= 0.6, 2, best).tolist()
    assert (scores.argmax(axis=1) == 2).sum() > (judged.predicted == 2).sum() > 0


@pytest.mark.parametrize(
    ("classes", "positive", "threshold", "sentence"),
    [
        ("ab", "c", None, "--positive c is none of the classes a, b"),
        ("ab", None, 1.5, "--threshold is a probability and must be in 0..1, got 1.5"),
        ("ab", None, math.nan, "--threshold is a probability and must be in 0..1, got nan"),
        (
            "abc", None, 0.5,
            "--threshold 0.5 applies to one class, but there are 3; name it with --positive CLASS",
        ),
    ],
)  # fmt: skip
def test_rule_that_means_nothing_is_refused(
    classes: str, positive: str | None, threshold: float | None, sentence: str
) -> None:
    with pytest.raises(UsageError) as caught:
        find_rule(ONE_LABEL, list(classes), positive, threshold)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("weighted", [False, True])
def test_areas_of_many_weightings_at_once_are_those_of_scikit_learn(weighted: bool) -> None:
    judged = judge(2)
    truth, scores = judged.labels == 1, ONE_LABEL.compute_probabilities(judged.logits)[:, 1]
    weights = np.random.default_rng(1).integers(0, 4, (3, 400)).astype(float) if weighted else np.ones((3, 400))
    sweep = sweep_thresholds(rank_scores(truth, scores), weights)
    assert len(np.unique(scores)) < 400  # ties are among them
    for row, auroc, area in zip(weights, sweep.auroc(), sweep.average_precision(), strict=True):
        assert auroc == pytest.approx(sk.roc_auc_score(truth, scores, sample_weight=row))
        assert area == pytest.approx(sk.average_precision_score(truth, scores, sample_weight=row))


@pytest.mark.parametrize("own", [1, 2, 16, 17, 200, 399])
def test_areas_without_a_sort_are_those_of_scikit_learn_for_any_number_of_samples_and_ties(own: int) -> None:
    rng = np.random.default_rng(own)
    truth, scores = rng.permutation(400) < own, rng.normal(size=400).round(1)
    areas = measure_areas(scores[truth], scores)
    assert areas.auroc == pytest.approx(sk.roc_auc_score(truth, scores), abs=1e-14)
    assert areas.average_precision == pytest.approx(sk.average_precision_score(truth, scores), abs=1e-14)


def test_area_of_pairs_is_the_nearest_number_to_their_share() -> None:
    scores = np.random.default_rng(0).integers(0, 30, 200)
    own, rest = scores[:70], scores[70:]
    halves = sum(2 * int(a > b) + int(a == b) for a in own.tolist() for b in rest.tolist())
    assert measure_areas(own, scores).auroc == float(Fraction(halves, 2 * 70 * 130))
    assert measure_areas(-rest, -scores).auroc == measure_areas(own, scores).auroc  # the other class ranks the same


@pytest.mark.parametrize("num_classes", [2, 3, 9])
@pytest.mark.parametrize("margin", [1, 40, 300, 2000])
def test_log_odds_are_those_of_exact_arithmetic_for_any_margin(num_classes: int, margin: int) -> None:
    rng = np.random.default_rng(margin)
    logits = (rng.integers(-3, 4, (20, num_classes)) * (margin / 4)).astype(np.float32)
    found = np.column_stack(list(LogOdds(ONE_LABEL, logits).columns()))
    for row, odds in zip(logits.astype(float).tolist(), found.tolist(), strict=True):
        for number, own in enumerate(row):
            others = [z for place, z in enumerate(row) if place != number]
            rest = max(others) + math.log(math.fsum(math.exp(z - max(others)) for z in others))
            assert odds[number] == pytest.approx(own - rest, rel=2e-12, abs=1e-12)


@pytest.mark.parametrize("num_classes", [3, 9])
def test_samples_whose_other_logits_are_in_another_order_stay_tied(num_classes: int) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (500, num_classes)).astype(np.float32)
    others = rng.permuted(logits[:, 1:], axis=1)
    swapped = np.concatenate([logits[:, :1], others], axis=1)
    assert LogOdds(ONE_LABEL, logits).column(0).tolist() == LogOdds(ONE_LABEL, swapped).column(0).tolist()


def test_log_odds_of_classes_that_are_given_apart_are_their_logits() -> None:
    logits = np.array([[0.5, -3, 80]], np.float32)
    assert np.column_stack(list(LogOdds(MANY_LABELS, logits).columns())).tolist() == [[0.5, -3.0, 80.0]]


@pytest.mark.parametrize("num_classes", [2, 3])
def test_samples_are_ranked_where_all_their_probabilities_round_to_one(num_classes: int) -> None:
    """Margins 40 to 70: those of class 1 in all but one of 12 pairs above those of class 0, which is called 1, too."""
    margins, labels = np.array([40, 41, 52, 50, 60, 65, 70]), np.array([0, 0, 0, 1, 1, 1, 1])
    logits = np.zeros((7, num_classes), np.float32)
    logits[:, 1] = margins
    scores = ONE_LABEL.compute_probabilities(logits)[:, 1]
    assert set(scores) == {1.0}
    metrics = measure(labels, logits, [f"c{number}" for number in range(num_classes)])
    assert metrics["per_class"]["c1"]["auroc"] == 11 / 12
    assert metrics["per_class"]["c1"]["auprc"] == pytest.approx((1 + 1 + 1 + 4 / 5) / 4)
    if num_classes == 2:
        assert (metrics["auroc"], metrics["sensitivity_at_specificity_95"]) == (11 / 12, 3 / 4)


@pytest.mark.parametrize("num_classes", [2, 7])
def test_counts_are_those_of_scikit_learn_to_the_last_bit(num_classes: int) -> None:
    judged = judge(num_classes)
    labels, said = judged.labels, judged.predicted
    columns = sk.precision_recall_fscore_support(labels, said, labels=range(num_classes), zero_division=0.0)
    for name, column in zip(("precision", "recall", "f1", "support"), columns, strict=True):
        assert [row[name] for row in judged.metrics["per_class"].values()] == column.tolist()
    assert judged.metrics["mcc"] == sk.matthews_corrcoef(labels, said)
    assert judged.metrics["kappa"] == sk.cohen_kappa_score(labels, said)


def test_table_in_blocks_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = judge(9).metrics
    monkeypatch.setattr(blocks, "CELLS", 31)
    assert {**judge(9).metrics, "kappa": 0.0} == {**whole, "kappa": 0.0}
    assert judge(9).metrics["kappa"] == pytest.approx(whole["kappa"], rel=1e-14)  # its cells are added block by block


def test_single_numbers_alone_are_those_beside_the_tables() -> None:
    judged = judge(6)
    classes = [f"c{number}" for number in range(6)]
    assert compute_scalars(judged.labels, judged.logits, classes, judged.rule) == select_scalars(judged.metrics)


def test_single_numbers_need_no_table_in_64_bits_beside_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,500 classes and pictures it would be 18 MB, and so would a confusion matrix."""
    monkeypatch.setattr(blocks, "CELLS", 1 << 15)
    labels, logits = np.arange(1500), np.random.default_rng(0).standard_normal((1500, 1500), dtype=np.float32)
    classes = [f"c{number}" for number in range(1500)]
    rule = find_rule(ONE_LABEL, classes)
    compute_scalars(labels[:10] % 2, logits[:10, :2], classes[:2], find_rule(ONE_LABEL, classes[:2]))  # what it imports
    tracemalloc.start()
    compute_scalars(labels, logits, classes, rule)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6
