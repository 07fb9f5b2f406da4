"""From logits to an answer: class shares, operating points, conformal sets, abstaining; all with known answers."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from shards.errors import ShardError, UsageError
from trainer.contract.decision.calibration import PriorShift, calibrate, parse_shares
from trainer.contract.decision.conformal import (
    ConformalSets,
    bound_coverage,
    find_members,
    find_quantile,
    fit_sets,
    fit_sets_by_class,
    score_classes,
)
from trainer.contract.decision.decision import Decision, Fitted, answer
from trainer.contract.decision.ood import OodRule
from trainer.contract.decision.operating_point import (
    NEVER,
    Interval,
    OperatingPoint,
    choose_threshold,
    list_candidates,
    parse_rule,
)
from trainer.contract.task import ONE_LABEL

Floats = npt.NDArray[np.float64]
FITTED = Fitted(dataset="0" * 64, part="val", samples=10, notes=[])
SHARE = Interval(value=0.5, low=0.4, high=0.6, count=10)
CLASSES = ["a", "b", "c"]


def make_point(threshold: float, positive: str = "b") -> OperatingPoint:
    return OperatingPoint(
        rule="max-f1", positive=positive, threshold=threshold, recall=SHARE, precision=SHARE, specificity=SHARE
    )


def test_class_shares_of_use_give_bayes_rule_of_two_gaussians() -> None:
    """Of x ~ N(-1, 1) or N(1, 1) the logit is 2 x + log(prior odds), whatever the priors are."""
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)

    def posterior(share: float) -> torch.Tensor:
        densities = [torch.exp(-((x - mean) ** 2) / 2) for mean in (-1.0, 1.0)]
        return densities[1] * share / (densities[0] * (1 - share) + densities[1] * share)

    trained = torch.stack([torch.log(1 - posterior(0.4)), torch.log(posterior(0.4))], dim=1)
    shift = PriorShift(train=[0.6, 0.4], deploy=[0.98, 0.02])
    shifted = torch.softmax(calibrate(trained, None, shift), dim=1)[:, 1]
    torch.testing.assert_close(shifted, posterior(0.02), rtol=1e-9, atol=0)


def test_the_temperature_comes_before_the_class_shares() -> None:
    shift = PriorShift(train=[0.5, 0.5], deploy=[0.8, 0.2])
    odds = calibrate(torch.tensor([0.0, 3.0]), 2.0, shift).diff()
    assert float(odds) == pytest.approx(3 / 2 + np.log(0.2 / 0.8))  # not (3 + log(...)) / 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("d=0.1", "with classes a, b, c, got 'd=0.1'; correct the name"),
        ("a=0.1,a=0.2", "names a twice"),
        ("a=2", "the share of a lies between 0 and 1, got '2'; 0.02 means 2 %"),
        ("a=x", "the share of a lies between 0 and 1, got 'x'"),
        ("a=0.5,b=0.6", "sums to 1.1; the shares must leave something for c"),
        ("a=0.5,b=0.2,c=0.2", "sums to 0.9; the shares must sum to 1"),
    ],
)
def test_a_wrong_class_share_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_shares("--deploy-prior", text, CLASSES, [0.2, 0.3, 0.5])
    assert sentence in str(caught.value)


# Scores of five positives and five others, with ties in 0.8 and 0.4.
SCORES = np.array([0.9, 0.8, 0.8, 0.6, 0.4, 0.8, 0.5, 0.4, 0.3, 0.1])
POSITIVE = np.array([True] * 5 + [False] * 5)
#  threshold   0.9  0.8  0.6  0.5  0.4  0.3  0.1
#  positives     1    3    4    4    5    5    5
#  others        0    1    1    2    3    4    5


@pytest.mark.parametrize(
    ("rule", "threshold"),
    [
        ("recall>=0.2", 0.9),
        ("recall>=0.21", 0.8),  # both positives that tie at 0.8 come together
        ("recall>=0.6", 0.8),
        ("recall>=0.8", 0.6),
        ("recall>=1", 0.4),
        ("precision>=1", 0.9),
        ("precision>=0.8", 0.6),  # 3 of 4, then 4 of 5: the lower threshold, which finds more
        ("precision>=0.81", 0.9),
        ("precision>=0.6", 0.4),
        ("max-f1", 0.6),  # 8/10 against 6/9, 8/11, 10/13
        ("sens@spec=1", 0.9),
        ("sens@spec=0.8", 0.6),
        ("sens@spec=0.7", 0.6),
        ("sens@spec=0.6", 0.5),
        ("cost fn=1,fp=1", 0.6),
        ("cost fn=5,fp=1", 0.4),
        ("cost fn=1,fp=5", 0.9),
        ("cost fp=9, fn=0.1", 0.9),
    ],
)
def test_operating_point_of_hand_made_scores(rule: str, threshold: float) -> None:
    found = list_candidates(SCORES, POSITIVE, np.ones(10))
    assert choose_threshold(parse_rule(rule), found, "b") == threshold


def test_candidates_count_ties_together() -> None:
    found = list_candidates(SCORES, POSITIVE, np.ones(10))
    assert found.thresholds.tolist() == [0.9, 0.8, 0.6, 0.5, 0.4, 0.3, 0.1]
    assert found.tp.tolist() == [1, 3, 4, 4, 5, 5, 5]
    assert found.fp.tolist() == [0, 1, 1, 2, 3, 4, 5]


def test_rows_that_are_rarer_in_use_weigh_less() -> None:
    """With negatives ten times as frequent, one false alarm among 3 hits leaves a precision of 3 / 13."""
    found = list_candidates(SCORES, POSITIVE, np.where(POSITIVE, 1.0, 10.0))
    assert found.precision[1] == pytest.approx(3 / 13)
    assert choose_threshold(parse_rule("precision>=0.25"), found, "b") == 0.6  # 4 of 14
    with pytest.raises(ShardError, match=r"reaches precision 0\.9"):
        choose_threshold(parse_rule("precision>=0.9"), list_candidates(SCORES[1:], POSITIVE[1:], np.ones(9)), "b")


def test_a_cost_may_be_least_when_the_class_is_never_decided() -> None:
    scores, positive = np.array([0.9, 0.8, 0.7]), np.array([False, False, True])
    threshold = choose_threshold(parse_rule("cost fn=1,fp=10"), list_candidates(scores, positive, np.ones(3)), "b")
    assert threshold == NEVER
    assert predict([0.0, 1.0], threshold, positive=1) == 0


@pytest.mark.parametrize(("fn", "fp"), list(itertools.product([1.0, 5.0, 20.0], [1.0, 3.0])))
def test_the_cost_of_exact_probabilities_is_least_at_the_threshold_of_bayes(fn: float, fp: float) -> None:
    """1,000 pictures at each probability p, of which exactly 1,000 p are positive."""
    shares = np.arange(1, 100) / 100
    scores = np.repeat(shares, 1000)
    positive = np.concatenate([np.arange(1000) < round(1000 * share) for share in shares])
    rule = parse_rule(f"cost fn={fn:g},fp={fp:g}")
    threshold = choose_threshold(rule, list_candidates(scores, positive, np.ones(len(scores))), "b")
    assert rule.bayes_threshold == fp / (fp + fn)
    assert threshold - 0.01 <= fp / (fp + fn) <= threshold + 1e-9


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (
            "precision>=0.95",
            "no threshold on DEFECTIVE reaches precision 0.95: the best is 0.6667, with recall 1.0000; "
            "lower the value, or train a better model",
        ),
        (
            "sens@spec=0.9",
            "no threshold on DEFECTIVE reaches specificity 0.9: the best is 0.5000, with recall 0.5000; "
            "lower the value, or train a better model",
        ),
    ],
)
def test_a_goal_out_of_reach_is_refused_with_the_best_there_is(rule: str, sentence: str) -> None:
    scores, positive = np.array([0.7, 0.7, 0.6, 0.5]), np.array([False, True, True, False])
    with pytest.raises(ShardError) as caught:
        choose_threshold(parse_rule(rule), list_candidates(scores, positive, np.ones(4)), "DEFECTIVE")
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    "text", ["recall", "recall>0.9", "recall>=", "f1", "cost", "cost fn=1", "sens=0.9", "recall>=x"]
)
def test_an_unknown_goal_is_refused_with_examples(text: str) -> None:
    examples = "recall>=0.98, 'recall>=0.98 with 95 %', precision>=0.95, max-f1, 'cost fn=5,fp=1' or "
    with pytest.raises(UsageError, match=re.escape(f"--point is {examples}")):
        parse_rule(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("recall>=98", "got 98; 0.98 means 98 %"), ("recall>=0", "above 0"), ("cost fn=0,fp=1", "give costs above 0")],
)
def test_a_goal_out_of_range_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_rule(text)
    assert sentence in str(caught.value)


def test_of_several_classes_the_others_share_what_is_below_the_threshold() -> None:
    assert [predict([0.3, 0.2, 0.5], threshold, positive=2) for threshold in (0.5, 0.51)] == [2, 0]
    assert predict([0.4, 0.2, 0.4], 0.2, positive=1) == 1
    assert predict([0.4, 0.2, 0.4], 0.3, positive=1) == 0  # the lower number wins a tie


def predict(shares: list[float], threshold: float, positive: int) -> int:
    """The class of one picture with these probabilities."""
    row = np.array([shares])
    return int(ONE_LABEL.predict(row, row, {positive: threshold})[0])


@pytest.mark.parametrize(
    ("number", "level", "rank"),
    [(9, 0.9, 9), (10, 0.9, 10), (18, 0.9, 18), (19, 0.9, 18), (99, 0.9, 90), (99, 0.55, 55), (1, 0.5, 1), (4, 0.3, 2)],
)
def test_the_quantile_is_the_rank_of_the_textbook(number: int, level: float, rank: int) -> None:
    """ceil((n + 1) * level), counted with a pencil: floating point makes 56 of 100 * 0.55."""
    scores = np.random.default_rng(0).permutation(np.arange(1.0, number + 1))
    assert find_quantile(scores, level) == rank


@pytest.mark.parametrize(("level", "needed"), [(0.9, 9), (0.95, 19), (0.99, 99), (0.5, 1), (0.75, 3)])
def test_too_few_pictures_for_a_level_are_refused_with_the_number_needed(level: float, needed: int) -> None:
    find_quantile(np.zeros(needed), level)
    with pytest.raises(ShardError) as caught:
        find_quantile(np.zeros(needed - 1), level)
    assert f"{needed - 1} pictures are too few for a level of {level:g}: {needed} are needed" in str(caught.value)


def test_weights_move_the_quantile_as_copies_of_scores_do() -> None:
    scores, weights = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 1.0, 2.0])
    copies = np.repeat(scores, weights.astype(int))
    for level in (0.1, 0.3, 0.5, 0.6, 0.8):
        assert find_quantile(scores, level, weights) == find_quantile(copies, level)


def test_lac_and_aps_by_hand() -> None:
    probabilities = np.array([[0.5, 0.125, 0.375]])
    assert score_classes(probabilities, "lac").tolist() == [[0.5, 0.875, 0.625]]
    assert score_classes(probabilities, "aps").tolist() == [[0.5, 1.0, 0.875]]


def make_sets(score: Any, *thresholds: float) -> ConformalSets:
    return ConformalSets(level=0.9, score=score, thresholds=list(thresholds), samples=10, mean_size=1)


def test_members_of_a_set_by_hand() -> None:
    probabilities = np.array([0.25, 0.125, 0.625])
    assert find_members(probabilities, make_sets("lac", 0.8, 0.8, 0.8)) == [2, 0]
    assert find_members(probabilities, make_sets("lac", 0.3, 0.3, 0.3)) == []
    assert find_members(probabilities, make_sets("lac", 0.8, 0.9, 0.1)) == [0, 1]
    assert find_members(probabilities, make_sets("aps", 0.7, 0.7, 0.7)) == [2]
    assert find_members(probabilities, make_sets("aps", 0.875, 0.875, 0.875)) == [2, 0]


def draw_logits(rng: np.random.Generator, number: int, shares: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Three Gaussians around the corners of a triangle, and a model that is sure of too much."""
    labels = rng.choice(3, number, p=shares)
    points = np.eye(3)[labels] * 1.5 + rng.normal(size=(number, 3))
    logits = 3 * points
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("score", ["lac", "aps"])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_sets_hold_the_true_class_as_often_as_promised(score: Any, level: float) -> None:
    """Over calibration sets of 60 the mean coverage lies between the level and the level + 1 / 61."""
    rng, shares, hits = np.random.default_rng(1), np.full(3, 1 / 3), []
    for _ in range(400):
        sets = fit_sets(*draw_logits(rng, 60, shares), level, score, None)
        probabilities, labels = draw_logits(rng, 200, shares)
        own = score_classes(probabilities, score)[np.arange(200), labels]
        hits.append((own <= sets.thresholds[0]).mean())
    slack = 4 * np.std(hits) / np.sqrt(len(hits))
    assert level - slack <= np.mean(hits) <= level + 1 / 61 + slack


def test_sets_hold_the_true_class_as_often_at_other_class_shares() -> None:
    """Fitted where all classes are equally frequent, used where one rules; without the weights it falls short."""
    rng, equal, other = np.random.default_rng(2), np.full(3, 1 / 3), np.array([0.06, 0.9, 0.04])
    coverage: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(60):
        probabilities, labels = draw_logits(rng, 600, equal)
        probabilities[:, 1] *= 0.05  # a model that does not believe in the second class
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        ratios = other / (np.bincount(labels) / 600)
        new, true = draw_logits(rng, 600, other)
        new[:, 1] *= 0.05
        new /= new.sum(axis=1, keepdims=True)
        own = score_classes(new, "lac")[np.arange(600), true]
        for weighted in (True, False):
            sets = fit_sets(probabilities, labels, 0.9, "lac", ratios if weighted else None)
            coverage[weighted].append((own <= np.array(sets.thresholds)[true]).mean())
    assert np.mean(coverage[True]) == pytest.approx(0.9, abs=0.01)
    assert np.mean(coverage[False]) < 0.87


def test_an_answer_without_a_fitted_decision_is_what_it_was() -> None:
    said = answer(torch.tensor([0.0, 2.0, 1.0]), CLASSES, Decision())
    assert said.describe().keys() == {"label", "labels", "probability", "probabilities", "logits"}
    assert list(said.probabilities.values()) == torch.tensor([0.0, 2.0, 1.0]).double().softmax(0).tolist()


def test_a_decision_that_was_never_fitted_is_written_as_before() -> None:
    assert json.loads(Decision().model_dump_json()) == {"rule": "argmax"}


def test_label_and_probability_are_those_of_the_operating_point() -> None:
    decision = Decision(point=make_point(0.2), fitted=FITTED)
    said = answer(torch.tensor([1.0, 0.0, -9.0]), CLASSES, decision)
    assert (said.label, said.decision, said.abstain) == ("b", "b", False)
    assert said.probability == said.probabilities["b"] == pytest.approx(1 / (1 + np.e), abs=1e-4)
    assert answer(torch.tensor([3.0, 0.0, -9.0]), CLASSES, decision).label == "a"


OOD = OodRule(threshold=7.0, kept=0.95, fitted_on="train", samples=9, features=2, file="x", sha256="y")


@pytest.mark.parametrize(
    ("options", "score", "abstains"),
    [
        ({"ood": OOD}, 7.0, False),
        ({"ood": OOD}, 7.01, True),
        ({"ood": OOD}, float("nan"), True),
        ({"conformal": make_sets("lac", 0.4, 0.4, 0.4)}, None, False),  # {b}
        ({"conformal": make_sets("lac", 0.8, 0.8, 0.8)}, None, True),  # {b, c}
        ({"conformal": make_sets("lac", 0.3, 0.3, 0.3)}, None, True),  # {}
        ({"abstain_below": 0.66}, None, False),
        ({"abstain_below": 0.67}, None, True),
        (
            {"abstain_below": 0.66, "point": make_point(0.05, "a")},
            None,
            False,
        ),  # some class has it, though not the label
    ],
)
def test_an_answer_abstains_for_each_reason_alone(options: dict[str, Any], score: float | None, abstains: bool) -> None:
    said = answer(torch.tensor([0.0, 2.0, 1.0]), CLASSES, Decision(fitted=FITTED, **options), score)  # 0.09, 0.67, 0.24
    assert said.abstain is abstains
    assert said.decision == said.label == ("a" if "point" in options else "b")


def test_a_set_lists_the_most_probable_class_first() -> None:
    decision = Decision(conformal=make_sets("lac", 0.8, 0.8, 0.8), fitted=FITTED)
    assert answer(torch.tensor([0.0, 2.0, 1.0]), CLASSES, decision).set == ["b", "c"]


def test_a_decision_that_needs_a_score_does_not_answer_without() -> None:
    with pytest.raises(ValueError, match=r"use Bundle\.compute, which returns it"):
        answer(torch.tensor([0.0, 2.0, 1.0]), CLASSES, Decision(ood=OOD, fitted=FITTED))


@pytest.mark.parametrize(("level", "samples"), [(0.9, 137), (0.8, 24), (0.95, 400)])
def test_what_one_fit_covers_is_in_the_bounds_in_95_of_100_fits(level: float, samples: int) -> None:
    """Scores are uniform, so that a threshold covers as much of new pictures as it is high."""
    rng = np.random.default_rng(0)
    covered = np.array([find_quantile(rng.random(samples), level) for _ in range(4000)])
    low, high = bound_coverage(level, samples)
    assert [(covered < low).mean(), (covered > high).mean()] == pytest.approx([0.025, 0.025], abs=0.008)


def draw_unequal(samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of two classes, of which the second is rare and hard to see."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(samples) < 0.2).astype(np.int64)
    shares = 1 / (1 + np.exp(-rng.normal(np.where(labels == 1, -0.5, -2.5), 1)))
    return np.stack([1 - shares, shares], axis=1), labels


@pytest.mark.parametrize("score", ["lac", "aps"])
def test_sets_by_class_hold_each_class_as_often_as_promised_where_others_do_not(score: Any) -> None:
    probabilities, labels = draw_unequal(4000, 0)
    fresh, truth = draw_unequal(8000, 1)

    def cover(sets: ConformalSets) -> list[float]:
        held = np.array([label in find_members(row, sets) for row, label in zip(fresh, truth.tolist(), strict=True)])
        return [float(held[truth == number].mean()) for number in (0, 1)]

    by_class = fit_sets_by_class(probabilities, labels, 0.9, score, ["easy", "hard"])
    if score == "lac":
        assert cover(fit_sets(probabilities, labels, 0.9, score, None))[1] < 0.8
        assert cover(by_class) == pytest.approx([0.9, 0.9], abs=0.025)
    assert min(cover(by_class)) > 0.875  # of two classes aps gives the less probable one a score of 1: all tie
    assert by_class.class_samples == np.bincount(labels).tolist()


def test_sets_by_class_need_enough_pictures_of_each_and_the_remedies_work() -> None:
    probabilities, labels = draw_unequal(40, 4)
    few = int((labels == 1).sum())
    assert 4 <= few < 9
    with pytest.raises(ShardError) as caught:
        fit_sets_by_class(probabilities, labels, 0.9, "lac", ["easy", "hard"])
    assert str(caught.value) == (
        "sets by class need 9 pictures of each class for a level of 0.9, but the split has hard "
        f"{few}; lower the level, fit on a larger split, or leave out --conformal-by class"
    )
    assert fit_sets_by_class(probabilities, labels, 0.75, "lac", ["easy", "hard"]).class_samples == [40 - few, few]
    assert fit_sets(probabilities, labels, 0.9, "lac", None).class_samples is None
    assert fit_sets_by_class(*draw_unequal(400, 4), 0.9, "lac", ["easy", "hard"]).samples == 400


def test_sets_that_are_not_by_class_are_stored_as_before_there_were_others() -> None:
    sets = make_sets("lac", 0.4, 0.4)
    assert set(sets.model_dump()) == {"level", "score", "thresholds", "samples", "mean_size"}
    by_class = sets.model_copy(update={"class_samples": [3, 4]})
    assert ConformalSets.model_validate_json(by_class.model_dump_json()) == by_class
