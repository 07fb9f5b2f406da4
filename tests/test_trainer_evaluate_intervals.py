"""95 % intervals hold the truth 95 times of 100, also where samples come in groups that are alike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as sk

from trainer.contract.task import ONE_LABEL
from trainer.evaluate.metrics import intervals, resampling
from trainer.evaluate.metrics.intervals import Answers, compute_intervals
from trainer.evaluate.metrics.metrics import compute_metrics, select_scalars
from trainer.evaluate.metrics.resampling import (
    Units,
    bound_mean,
    describe_few,
    find_units,
    list_unbounded,
    plan_draws,
    wilson,
)
from trainer.evaluate.metrics.row_scores import score_rows
from trainer.evaluate.metrics.rule import find_rule

SIMULATIONS = 400
TOLERANCE = 2 * math.sqrt(0.95 * 0.05 / SIMULATIONS)
"""Two standard deviations of the share of intervals that hold the truth, 0.022; the simulations are always the same."""


def make_answers(samples: int, num_classes: int, seed: int = 0) -> Answers:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, samples)
    logits = rng.normal(size=(samples, num_classes)).astype(np.float32)
    logits[np.arange(samples), labels] += 1
    return Answers(labels, logits.argmax(axis=1), logits)


def bound(answers: Answers, groups: list[str] | None = None, resamples: int = 1000) -> dict[str, Any]:
    classes = [f"c{number}" for number in range(answers.num_classes)]
    units = find_units(len(answers.labels), pa.array(groups) if groups else None)
    return compute_intervals(answers, classes, find_rule(ONE_LABEL, classes), units, resamples)


def simulate_accuracy(rng: np.random.Generator, clusters: int, alike: float, per_cluster: int) -> np.ndarray:
    """Whether each answer is right, bool[clusters * per_cluster], with probability 0.8.

    Two answers of a cluster are correlated by `alike`: with that probability squared both copy the cluster's own.
    """
    own = rng.random((clusters, 1)) < 0.8
    copies = rng.random((clusters, per_cluster)) < math.sqrt(alike)
    return np.where(copies, own, rng.random((clusters, per_cluster)) < 0.8).ravel()


def cover(clusters: int, alike: float, per_cluster: int, by_group: bool, simulations: int = SIMULATIONS) -> float:
    """The share of simulations whose interval of accuracy holds 0.8."""
    rng, held = np.random.default_rng(3), 0
    groups = np.repeat(np.arange(clusters), per_cluster)
    for _ in range(simulations):
        right = simulate_accuracy(rng, clusters, alike, per_cluster)
        labels = np.zeros(len(right), dtype=np.int64)
        answers = Answers(labels, 1 - right.astype(np.int64), np.zeros((len(right), 2), np.float32))
        names = [str(name) for name in groups] if by_group else None
        low, high = bound(answers, names, resamples=200)["intervals"]["accuracy"]
        held += low <= 0.8 <= high
    return held / simulations


def test_intervals_hold_the_truth_95_times_of_100() -> None:
    assert cover(180, 0, 1, by_group=False) == pytest.approx(0.95, abs=TOLERANCE)


def test_intervals_by_group_do_so_although_samples_of_a_group_are_alike() -> None:
    assert cover(150, 0.5, 4, by_group=True) == pytest.approx(0.95, abs=TOLERANCE)


def test_intervals_by_sample_would_not() -> None:
    assert cover(80, 0.5, 5, by_group=False, simulations=60) < 0.85


def test_intervals_by_group_are_wider_by_the_design_effect() -> None:
    """Of m alike samples a group: sqrt(1 + (m - 1) * correlation). Source: Kish 1965."""
    alike, size = 0.5, 8
    right = simulate_accuracy(np.random.default_rng(0), 1500, alike, size)
    answers = Answers(np.zeros(len(right), np.int64), 1 - right.astype(np.int64), np.zeros((len(right), 2), np.float32))
    widths = []
    for groups in (None, [str(name) for name in np.repeat(np.arange(1500), size)]):
        low, high = bound(answers, groups, resamples=500)["intervals"]["accuracy"]
        widths.append(high - low)
    assert widths[1] / widths[0] == pytest.approx(math.sqrt(1 + (size - 1) * alike), rel=0.1)


@pytest.mark.parametrize("num_classes", [2, 7])
def test_every_metric_is_resampled_as_it_is_computed(num_classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With resamples that are the samples themselves each value is the metric; unbounded ones are left out."""
    monkeypatch.setattr(Units, "draw", lambda self, _, resamples: np.ones((resamples, self.number)))
    answers = make_answers(300, num_classes)
    classes = [f"c{number}" for number in range(num_classes)]
    rule = find_rule(ONE_LABEL, classes)
    numbers, rows = intervals._list_ranked(answers, rule), score_rows(answers.labels, answers.logits, rule)
    values = intervals._resample(answers, rows, rule, plan_draws(find_units(300, None), len(numbers), 4), numbers)
    metrics = compute_metrics(answers.labels, answers.logits, classes, rule)
    left_out = {"samples", *list_unbounded(ONE_LABEL)}
    scalars = {name: [value] * 4 for name, value in select_scalars(metrics).items() if name not in left_out}
    by_class = {name: values.pop(f"class/{name}")[0] for name in ("precision", "recall", "f1")}
    assert {name: value.tolist() for name, value in values.items()} == {
        name: pytest.approx(value) for name, value in scalars.items()
    }
    for name, column in by_class.items():
        assert column == pytest.approx([row[name] for row in metrics["per_class"].values()])


def test_interval_is_that_of_resamples_with_scikit_learn() -> None:
    answers = make_answers(120, 2)
    rng = np.random.default_rng(9)
    scores = ONE_LABEL.compute_probabilities(answers.logits)[:, 1]
    drawn = [rng.integers(0, 120, 120) for _ in range(300)]
    areas = [sk.roc_auc_score(answers.labels[rows], scores[rows]) for rows in drawn]
    f1s = [sk.f1_score(answers.labels[rows], answers.predicted[rows], average="macro") for rows in drawn]
    found = bound(answers)["intervals"]
    assert found["auroc"] == pytest.approx(np.quantile(areas, [0.025, 0.975]), abs=0.02)
    assert found["macro_f1"] == pytest.approx(np.quantile(f1s, [0.025, 0.975]), abs=0.02)


def test_how_it_was_done_is_told() -> None:
    answers = make_answers(60, 3)
    groups = [f"patient {number // 2}" if number < 40 else "" for number in range(60)]
    assert bound(answers)["interval"] == {
        "method": "percentile bootstrap",
        "level": 0.95,
        "by": "sample",
        "units": 60,
        "resamples": 1000,
        "notes": list_unbounded(ONE_LABEL),
    }
    assert list_unbounded(ONE_LABEL)["ece"] == "resampling would bias it upward"
    by_group = bound(answers, groups)["interval"]
    assert (by_group["by"], by_group["units"]) == ("group", 40)  # a sample without a group is one of its own


def test_groups_of_one_sample_each_are_samples() -> None:
    assert find_units(3, pa.array(["a", "b", ""])).by == "sample"
    assert find_units(3, pa.array(["a", "b", "a"])).of.tolist() == [0, 1, 0]
    mixed = find_units(6, pa.array(["", "b", None, "a", "b", ""]))
    assert (mixed.of.tolist(), mixed.number) == ([2, 0, 3, 1, 0, 4], 5)


def test_few_groups_are_told() -> None:
    answers = make_answers(40, 2)
    notes = bound(answers, [str(number % 4) for number in range(40)])["interval"]["notes"]
    assert notes["groups"] == (
        "intervals of 4 groups are too narrow: fewer than 84 of 100 contain the truth, not 95; use at least 100 groups"
    )


@pytest.mark.parametrize(
    ("number", "held"), [(4, "fewer than 84"), (10, "about 84"), (29, "about 90"), (30, "about 92"), (99, "about 93")]
)
def test_note_on_few_groups_says_how_many_intervals_hold_the_truth(number: int, held: str) -> None:
    (note,) = describe_few(Units("group", np.arange(number), number))
    assert f"intervals of {number} groups are too narrow: {held} of 100 contain the truth" in note
    assert describe_few(Units("group", np.arange(100), 100)) == []  # as many as the note names
    assert describe_few(Units("sample", np.arange(number), number)) == []


def test_no_mistake_in_24_samples_is_not_certainty() -> None:
    labels = np.array([0, 1] * 12)
    answers = Answers(labels, labels, np.eye(2, dtype=np.float32)[labels] * 9)
    found = bound(answers)
    assert found["intervals"]["accuracy"] == wilson(24, 24)
    assert found["intervals"]["sensitivity"] == wilson(12, 12)
    note = "every resample gives the same value; it is Wilson's of 24 samples instead"
    assert found["interval"]["notes"]["accuracy"] == note
    assert "auroc" not in found["intervals"]


def test_class_that_resamples_often_lack_has_no_interval_but_a_reason() -> None:
    answers = make_answers(50, 2)
    labels = np.zeros(50, np.int64)
    labels[7] = 1
    found = bound(Answers(labels, answers.predicted, answers.logits))
    assert "sensitivity" not in found["intervals"]
    assert found["interval"]["notes"]["sensitivity"] == "a class is so rare that many resamples lack it"
    assert "specificity" in found["intervals"]


def test_of_many_samples_and_classes_there_are_fewer_resamples_by_order_and_at_last_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resampling, "RANKED_DRAWS", 60 * 3 * 300)
    found = bound(make_answers(60, 3))
    assert (found["interval"]["resamples"], found["interval"]["resamples_of_ranks"]) == (1000, 300)
    assert "auroc" in found["intervals"]
    monkeypatch.setattr(resampling, "_RANKED_MOST", 60 * 3 - 1)
    found = bound(make_answers(60, 3))
    assert "auroc" not in found["intervals"]
    assert found["interval"]["notes"]["auroc"] == "too many samples and classes to resample in time"


def test_intervals_do_not_depend_on_how_many_resamples_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, groups = make_answers(60, 3), [str(number // 3) for number in range(60)]
    units = find_units(60, pa.array(groups))
    together = bound(answers, groups, resamples=50), bound_mean(answers.labels == 0, units, 50)
    monkeypatch.setattr(resampling, "_BLOCK", 60 * 7)
    assert (bound(answers, groups, resamples=50), bound_mean(answers.labels == 0, units, 50)) == together


@pytest.mark.parametrize(("right", "number"), [(0, 10), (3, 10), (10, 10), (812, 1000)])
def test_interval_of_a_proportion_is_where_the_score_test_turns(right: int, number: int) -> None:
    """At the bounds p, the share lies 1.96 standard deviations of p away."""
    for p, clipped in zip(wilson(right, number), (right == 0, right == number), strict=True):
        if not clipped:
            assert abs(right / number - p) / math.sqrt(p * (1 - p) / number) == pytest.approx(1.959964, rel=1e-6)


def test_accuracy_of_a_slice_goes_by_its_groups() -> None:
    right = np.array([True] * 30 + [False] * 10)
    assert bound_mean(right, find_units(40, None)) == wilson(30, 40)
    of = np.repeat(np.arange(8), 5)
    low, high = bound_mean(right, Units("group", of, 8)) or (0, 0)
    assert high - low > np.diff(wilson(30, 40))[0]
    assert bound_mean(right, Units("group", np.zeros(40, np.int64), 1)) is None
