"""Differences between variants: against textbook tests where they reduce to one, and by simulation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from shards.errors import UsageError
from trainer.contract.task import ONE_LABEL
from trainer.evaluate.metrics.metrics import compute_scalars
from trainer.evaluate.metrics.rule import Rule
from tune.stats.paired import Estimate, estimate_difference, estimate_mean
from tune.stats.scores import METRICS, score_auroc

Floats = npt.NDArray[np.float64]


def make_rng() -> np.random.Generator:
    return np.random.default_rng(0)


# where the method is a known one


def test_single_runs_are_compared_by_the_paired_t_test() -> None:
    one, other = make_rng().normal(size=(2, 60))
    found, known = estimate_difference(one[None], other[None]), stats.ttest_rel(one, other)
    assert found.p == pytest.approx(known.pvalue)
    assert found.interval == pytest.approx(tuple(known.confidence_interval()))


def test_runs_that_differ_by_luck_alone_are_compared_by_welchs_t_test() -> None:
    """Each run scores alike on all of its pictures: nothing is special to a picture."""
    one, other = make_rng().normal(size=4), make_rng().normal(0.3, 2, size=6)
    found = estimate_difference(np.repeat(one[:, None], 50, 1), np.repeat(other[:, None], 50, 1))
    known = stats.ttest_ind(one, other, equal_var=False)
    assert found.p == pytest.approx(known.pvalue)
    assert found.df == pytest.approx(known.df)
    assert found.interval == pytest.approx(tuple(known.confidence_interval()))


def test_runs_without_any_luck_are_compared_over_pictures_alone() -> None:
    one, other = make_rng().normal(size=(2, 60))
    found = estimate_difference(np.repeat(one[None], 3, 0), np.repeat(other[None], 3, 0))
    assert found.p == pytest.approx(stats.ttest_rel(one, other).pvalue)


def test_groups_of_one_size_are_compared_by_their_means() -> None:
    one, other = make_rng().normal(size=(2, 20, 5))
    groups = np.repeat(np.arange(20), 5)
    found = estimate_difference(one.reshape(1, -1), other.reshape(1, -1), groups)
    assert found.p == pytest.approx(stats.ttest_rel(one.mean(axis=1), other.mean(axis=1)).pvalue)


def test_order_of_pictures_and_numbers_of_groups_do_not_matter() -> None:
    rng = make_rng()
    one, other, groups = rng.normal(size=(3, 90)), rng.normal(size=(4, 90)), rng.integers(0, 30, 90)
    order = rng.permutation(90)
    first = estimate_difference(one, other, groups)
    second = estimate_difference(one[:, order], other[:, order], 1000 - 7 * groups[order])
    assert (first.value, first.error, first.df) == pytest.approx((second.value, second.error, second.df))
    swapped = estimate_difference(other, one, groups)
    assert (swapped.value, swapped.error, swapped.df) == pytest.approx((-first.value, first.error, first.df))


def test_components_of_a_balanced_table_are_those_of_its_analysis_of_variance() -> None:
    """Runs x pictures without replication: the mean's variance is (MS runs + MS pictures - MS rest) / (runs pictures).

    The table is Snedecor and Cochran's of soybean seeds that failed after five treatments in five plots (Statistical
    Methods, 1967, table 11.2.1), whose mean squares are 20.96 for treatments, 12.46 for plots and 5.41 for the rest.
    """
    table = np.array(
        [[8, 10, 12, 13, 11], [2, 6, 7, 11, 5], [4, 10, 9, 8, 10], [3, 5, 9, 10, 6], [9, 7, 5, 5, 3]], np.float64
    )
    found = estimate_mean(table)
    assert found.value == pytest.approx(7.52)
    assert found.error**2 == pytest.approx((20.96 + 12.46 - 5.41) / 25, rel=1e-3)


def test_no_difference_at_all_has_a_p_of_1() -> None:
    same = np.ones((3, 10))
    assert (estimate_difference(same, same).p, estimate_difference(same, same).interval) == (1.0, (0.0, 0.0))
    assert Estimate(0.5, 0.0, 3).p == 0.0


# by simulation


def simulate(
    rng: np.random.Generator, runs: int, pictures: int, seed_sd: float, group_size: int = 1, special_sd: float = 0.5
) -> Floats:
    """Return scores of 0 and 1 of two variants that do not differ: [variant, run, picture].

    special_sd: of how much better or worse one of them is on single pictures, in log-odds, as seed_sd is for runs.
    """
    groups = pictures // group_size
    hard = np.repeat(rng.normal(1.5, 1.5, groups), group_size)
    special = np.repeat(rng.normal(0, special_sd, (2, 1, groups)), group_size, axis=2)
    luck = rng.normal(0, seed_sd, (2, runs, 1))
    return (rng.random((2, runs, pictures)) < 1 / (1 + np.exp(-(hard + special + luck)))).astype(np.float64)


@pytest.mark.parametrize("runs", [3, 5])
@pytest.mark.parametrize(("seed_sd", "group_size"), [(0.0, 1), (0.1, 1), (0.3, 1), (0.1, 8)])
def test_intervals_hold_as_often_as_they_say(runs: int, seed_sd: float, group_size: int) -> None:
    """600 times; 95 % less 4 standard errors of that is 0.914, as in tests/bench, which has the whole grid."""
    rng, held = make_rng(), 0
    groups = np.repeat(np.arange(200 // group_size), group_size)
    for _ in range(600):
        low, high = estimate_difference(*simulate(rng, runs, 200, seed_sd, group_size), groups).interval
        held += low <= 0 <= high
    assert held / 600 >= 0.914


def test_counting_seeds_or_pictures_alone_does_not_hold() -> None:
    """What the simulation is for: with these either of the two usual tests claims differences that are not there."""
    rng, by_seeds, by_pictures = make_rng(), 0, 0
    for _ in range(300):
        one, other = simulate(rng, 5, 200, 0.1, special_sd=2)
        by_seeds += stats.ttest_ind(one.mean(axis=1), other.mean(axis=1), equal_var=False).pvalue < 0.05
        one, other = simulate(rng, 3, 5000, 0.3)
        by_pictures += stats.ttest_rel(one.mean(axis=0), other.mean(axis=0)).pvalue < 0.05
    assert by_seeds / 300 > 0.1
    assert by_pictures / 300 > 0.5


# metrics as numbers of pictures


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("metric", METRICS)
def test_pseudo_values_have_the_metric_as_their_mean_and_are_those_of_the_jackknife(metric: str, classes: int) -> None:
    rng, score = make_rng(), METRICS[metric]
    labels, logits = rng.integers(0, classes, 240), rng.normal(size=(240, classes)).astype(np.float32)
    logits[np.arange(240), labels] += 1
    values = score(labels, logits)
    names = [str(number) for number in range(classes)]
    expected = compute_scalars(labels, logits, names, Rule(ONE_LABEL, 1 if classes == 2 else None))
    assert values.mean() == pytest.approx(expected[metric])
    for left_out in range(0, 240, 12):
        without = score(np.delete(labels, left_out), np.delete(logits, left_out, axis=0)).mean()
        assert values[left_out] == pytest.approx(240 * values.mean() - 239 * without, abs=0.02)


def test_class_without_a_picture_counts_in_no_mean_and_has_no_auroc() -> None:
    labels, logits = np.array([0, 0, 1, 1]), np.eye(3, dtype=np.float32)[[0, 1, 1, 2]]
    assert METRICS["balanced_accuracy"](labels, logits).mean() == pytest.approx(0.5)
    assert METRICS["macro_f1"](labels, logits).mean() == pytest.approx((2 / 3 + 1 / 2) / 2)
    with pytest.raises(UsageError, match=r"class number 2 has none among these; compare by accuracy or log_loss"):
        score_auroc(labels, logits)
