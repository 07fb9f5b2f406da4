"""What trainer.decide fits, on data whose right answer is known in closed form."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from scipy.stats import beta, binom, chi2

from shards.errors import ShardError, UsageError
from trainer.contract.decision.calibration import PriorShift
from trainer.contract.decision.decision import Decision
from trainer.contract.decision.ood import Detector
from trainer.contract.decision.operating_point import OperatingPoint, choose_threshold, list_candidates, parse_rule
from trainer.contract.task import ONE_LABEL
from trainer.decide.decision import Seen, fit_decision, is_in_first_half
from trainer.decide.gaussians import fit_gaussians
from trainer.decide.grouped import bound_by_group
from trainer.decide.point import measure_point
from trainer.decide.proportions import bound_precision, bound_rate, bound_share
from trainer.decide.sure import choose_sure_threshold
from trainer.decide.temperature import fit_temperature
from trainer.decide.wish import Wish
from trainer.evaluate.metrics.resampling import Units, find_units

Ints = npt.NDArray[np.int64]
Floats32 = npt.NDArray[np.float32]


def make_exact(counts: list[list[int]], repeats: int = 1) -> tuple[Floats32, Ints]:
    """Return logits that are exactly calibrated: of the rows with the same logits, each class has its share."""
    logits, labels = [], []
    for row in counts:
        for number, count in enumerate(row):
            logits += [np.log(np.array(row) / sum(row))] * count * repeats
            labels += [number] * count * repeats
    return np.array(logits, dtype=np.float32), np.array(labels)


THREE = make_exact([[6, 3, 1], [1, 8, 1], [2, 2, 6], [3, 4, 3]])
TWO = make_exact([[9, 1], [7, 3], [4, 6], [1, 19]])


@pytest.mark.parametrize("exact", [TWO, THREE], ids=["two classes", "three"])
@pytest.mark.parametrize("temperature", [0.02, 0.5, 1.0, 2.5, 300.0])
def test_the_temperature_by_which_exact_logits_were_multiplied_is_found(
    exact: tuple[Floats32, Ints], temperature: float
) -> None:
    logits, labels = exact
    found = fit_temperature(logits * np.float32(temperature), labels)
    assert found.temperature == pytest.approx(temperature, rel=1e-4)


def test_the_loss_after_the_temperature_is_the_entropy_of_exact_probabilities() -> None:
    logits, labels = TWO
    entropy = -float(logits[np.arange(len(labels)), labels].mean())
    found = fit_temperature(logits * 4, labels)
    assert found.log_loss_after == pytest.approx(entropy, rel=1e-6)
    assert found.log_loss_before > entropy + 0.1


def test_a_constant_added_to_a_row_does_not_change_the_temperature() -> None:
    logits, labels = THREE
    shifted = logits + np.linspace(-50, 50, len(logits), dtype=np.float32)[:, None]
    assert fit_temperature(shifted, labels).temperature == pytest.approx(1, rel=1e-3)


def test_logits_without_a_mistake_leave_the_temperature_open() -> None:
    labels = np.array([0, 1, 2, 1])
    found = fit_temperature(np.eye(3, dtype=np.float32)[labels] + np.float32(0.1), labels)
    assert (found.temperature, found.log_loss_before) == (None, found.log_loss_after)


@pytest.mark.parametrize("logits", [-TWO[0], np.zeros_like(TWO[0])], ids=["worse than chance", "all equal"])
def test_logits_that_say_nothing_are_refused(logits: Floats32) -> None:
    with pytest.raises(ShardError, match=r"the logits carry no information about the labels of these 50 pictures"):
        fit_temperature(logits, TWO[1])


def test_distances_to_a_gaussian_are_distributed_as_chi_square() -> None:
    """In D dimensions, around any of the class means, whatever the covariance."""
    rng, dimension = np.random.default_rng(0), 6
    mixing = rng.normal(size=(dimension, dimension))
    labels = rng.integers(0, 3, 60_000)
    means = 40 * rng.normal(size=(3, dimension))  # far apart: the nearest mean is the own one
    points = (means[labels] + rng.normal(size=(len(labels), dimension)) @ mixing).astype(np.float32)
    detector = fit_gaussians(points[:30_000], labels[:30_000])
    scores = detector.measure(torch.from_numpy(points[30_000:])).numpy()
    for share in (0.1, 0.5, 0.9, 0.99):
        assert np.quantile(scores, share) == pytest.approx(chi2.ppf(share, dimension), rel=0.03)


def test_the_distance_is_that_of_the_textbook_in_one_dimension() -> None:
    points = np.array([[0.0], [2.0], [10.0], [12.0]], dtype=np.float32)  # means 1 and 11, variance 4 / (4 - 2)
    detector = fit_gaussians(points, np.array([0, 0, 1, 1]))
    distances = detector.measure(torch.tensor([[1.0], [3.0], [8.0]]))
    assert distances.tolist() == pytest.approx([0.0, 2.0, 4.5], rel=1e-5)


def test_a_class_without_pictures_has_no_gaussian() -> None:
    points = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    assert fit_gaussians(points, np.array([0, 2] * 10)).means.shape == (2, 3)


def test_the_length_of_features_does_not_change_their_score() -> None:
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32))
    detector = fit_gaussians(torch.nn.functional.normalize(points).numpy(), np.zeros(50, dtype=np.int64))
    torch.testing.assert_close(detector.score(points * 7), detector.score(points), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(detector.measure(points * 7), detector.measure(points))


@pytest.mark.parametrize(
    ("points", "labels", "sentence"),
    [
        (np.zeros((9, 2)), [0, 1, 2] * 3, "the features of these pictures do not vary"),
        (np.eye(3), [0, 1, 2], "3 pictures of 3 classes do not determine a covariance"),
    ],
)
def test_features_that_give_no_covariance_are_refused(
    points: npt.NDArray[np.float64], labels: list[int], sentence: str
) -> None:
    with pytest.raises(ShardError, match=sentence):
        fit_gaussians(points.astype(np.float32), np.array(labels))


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (3, 10), (10, 10), (98, 100)])
def test_the_interval_of_a_share_is_that_of_clopper_and_pearson(hits: int, count: int) -> None:
    share = bound_share(hits, count)
    assert share.low == pytest.approx(beta.ppf(0.025, hits, count - hits + 1) if hits else 0)
    assert share.high == pytest.approx(beta.ppf(0.975, hits + 1, count - hits) if hits < count else 1)
    assert (share.value, share.count) == (hits / count, count)


def test_the_interval_of_recall_holds_though_the_threshold_was_chosen_on_the_same_pictures() -> None:
    """Scores of positives are uniform on 0..1, so the true recall at a threshold t is 1 - t."""
    rng, rule, held = np.random.default_rng(3), parse_rule("recall>=0.9"), []
    bounds, positive = bound_share(36, 40), np.repeat([True, False], 40)
    for _ in range(800):
        scores = rng.uniform(0, 1, 80)
        threshold = choose_threshold(rule, list_candidates(scores, positive, np.ones(80)), "b")
        assert (scores[:40] >= threshold).sum() == 36
        held.append(bounds.low <= 1 - threshold <= bounds.high)
    assert 1 > np.mean(held) > 0.95 - 3 * np.sqrt(0.05 * 0.95 / 800)


def test_precision_at_other_class_shares_is_that_of_bayes() -> None:
    """Recall 0.9 and false alarms 0.1: of 1 % positives, 0.009 of 0.108 alarms are right."""
    flagged, totals = np.array([100, 900]), np.array([1000, 1000])
    precision = bound_precision(flagged, totals, np.array([0.99, 0.01]) * 2, positive=1)
    assert precision is not None
    assert precision.value == pytest.approx(0.009 / 0.108)
    rates = beta.ppf([0.025, 0.975], 100.5, 900.5)  # by far the larger uncertainty
    assert (precision.low, precision.high) == pytest.approx(
        (0.009 / (0.009 + 0.99 * rates[1]), 0.009 / (0.009 + 0.99 * rates[0])), rel=0.03
    )


def test_specificity_of_several_classes_goes_by_their_shares_in_use() -> None:
    spared, totals = np.array([90, 50, 0]), np.array([100, 100, 0])  # the third is the positive class
    specificity = bound_rate(spared, totals, np.array([1.5, 0.5, 1.0]))
    assert specificity
    assert specificity.value == pytest.approx((0.9 * 1.5 + 0.5 * 0.5) / 2)
    assert specificity.low < specificity.value < specificity.high


def make_groups(count: int, hits: int, size: int) -> tuple[Ints, npt.NDArray[np.bool_], Units]:
    """Return labels, what is flagged, and groups of `size` positives and as many negatives, which go all one way.

    Of `hits` of `count` groups every positive is flagged; of a quarter of the groups every negative is.
    """
    number = np.repeat(np.arange(count), 2 * size)
    labels = np.tile(np.repeat([1, 0], size), count)
    flagged = np.where(labels == 1, number < hits, number % 4 == 0)
    return labels, flagged, find_units(len(labels), pa.array([str(each) for each in number]))


def test_pictures_of_a_group_that_go_one_way_count_as_one() -> None:
    """Each group has as many positives, so a resample's recall is binomial, of groups; a picture more adds nothing."""
    for size in (1, 25):
        labels, flagged, units = make_groups(40, 32, size)
        recall, _, specificity = measure_point(flagged, labels, 1, 2, None, units)
        for found, share in ((recall, 0.8), (specificity, 0.75)):
            assert found
            assert (found.value, found.count) == (pytest.approx(share), 40 * size)
            expected = binom.ppf([0.025, 0.975], 40, share) / 40
            assert (found.low, found.high) == pytest.approx(expected, abs=1.01 / 40)


def test_interval_of_a_recall_by_groups_holds_where_that_by_pictures_does_not() -> None:
    """Groups of 4 pictures that go one way, the true recall 0.8."""
    rng, held = np.random.default_rng(4), []
    for _ in range(200):
        labels, flagged, units = make_groups(60, int(rng.binomial(60, 0.8)), 4)
        true = labels == 1
        by_group = bound_by_group(flagged & true, true, labels, None, units)
        assert by_group
        by_picture = bound_share(int((flagged & true).sum()), int(true.sum()))
        held.append([each.low <= 0.8 <= each.high for each in (by_group, by_picture)])
    share_by_group, share_by_picture = np.mean(held, axis=0)
    assert share_by_group > 0.95 - 3 * np.sqrt(0.05 * 0.95 / 200)
    assert share_by_picture < 0.8


def test_class_shares_of_use_count_by_groups_as_they_do_by_pictures() -> None:
    """Precision of 40 groups at 10 % positives: 0.08 of 0.08 + 0.9 / 4; a share of 1/2, as here, changes nothing."""
    labels, flagged, units = make_groups(40, 32, 5)
    rare, plain, same = (
        measure_point(flagged, labels, 1, 2, ratios, units)[1]
        for ratios in (np.array([1.8, 0.2]), None, np.array([1.0, 1.0]))
    )
    assert rare
    assert rare.value == pytest.approx(0.08 / (0.08 + 0.9 / 4))
    assert rare.low < rare.value < rare.high
    assert plain == same


def test_recall_of_all_groups_has_the_exact_interval_of_their_number() -> None:
    labels, flagged, units = make_groups(12, 12, 30)
    recall, _, _ = measure_point(flagged, labels, 1, 2, None, units)
    assert recall
    assert (recall.low, recall.high) == pytest.approx((beta.ppf(0.025, 12, 1), 1.0))
    assert recall.count == 360


def make_seen(logits: Floats32, labels: Ints, features: Floats32 | None = None, part: str = "val") -> Seen:
    ids = np.arange(len(labels))
    none = np.zeros((len(labels), 0), np.float32)
    return Seen(ONE_LABEL, "0" * 64, part, ids, labels, logits, none if features is None else features)  # type: ignore[arg-type]


def decide(wish: Wish, seen: Seen, reference: Seen | None = None) -> Decision:
    classes = ["a", "b", "c"][: seen.logits.shape[1]]
    return fit_decision(wish, classes, seen, reference, []).decision


MANY = make_exact([[6, 3, 1], [1, 8, 1], [2, 2, 6], [3, 4, 3]], repeats=10)


def test_temperature_and_sets_are_fitted_to_different_halves() -> None:
    """Spoiling the labels of one half changes what is fitted to it and nothing else."""
    logits, labels = MANY
    order = np.random.default_rng(0).permutation(len(labels))
    logits, labels = logits[order], labels[order]
    first = is_in_first_half(np.arange(len(labels)))
    wish = Wish(level=0.8)
    plain = decide(wish, make_seen(logits, labels))
    assert plain.fitted
    assert plain.fitted.notes[0].startswith(
        "the sets' guarantee holds on average over pictures like those of val, not for"
    )
    second_spoilt = decide(wish, make_seen(logits, np.where(first, labels, (labels + 1) % 3)))
    assert second_spoilt.temperature == plain.temperature
    assert plain.conformal
    assert second_spoilt.conformal
    assert second_spoilt.conformal.thresholds != plain.conformal.thresholds
    assert plain.conformal.samples == int((~first).sum())
    alone = decide(Wish(temperature=False, level=0.8), make_seen(logits, labels))
    assert alone.conformal
    assert alone.conformal.samples == len(labels)
    assert decide(Wish(), make_seen(logits[first], labels[first])).temperature == pytest.approx(plain.temperature)


def test_the_threshold_of_the_score_keeps_the_share_of_new_pictures() -> None:
    rng = np.random.default_rng(5)
    labels, shares = rng.integers(0, 3, 4000), []
    features = (np.eye(3, 8)[labels] * 3 + 2 + rng.normal(size=(4000, 8))).astype(np.float32)
    logits = rng.normal(size=(4000, 3)).astype(np.float32)
    reference = make_seen(logits[:1000], labels[:1000], features[:1000], "train")
    for start in range(1000, 4000, 300):
        rows = slice(start, start + 300)
        decision, detector = _decide_ood(make_seen(logits[rows], labels[rows], features[rows]), reference)
        assert decision.ood
        shares.append((detector.score(torch.from_numpy(features)) <= decision.ood.threshold).numpy()[1000:].mean())
    assert np.mean(shares) == pytest.approx(0.9, abs=0.02)
    far = torch.from_numpy(features[:50] * -1)
    assert bool((detector.score(far) > decision.ood.threshold).all())


def _decide_ood(seen: Seen, reference: Seen | None) -> tuple[Decision, Detector]:
    decided = fit_decision(Wish(temperature=False, kept=0.9), ["a", "b", "c"], seen, reference, [])
    assert decided.detector
    return decided.decision, decided.detector


def test_without_a_reference_gaussians_and_threshold_come_from_different_halves() -> None:
    rng, labels = np.random.default_rng(6), np.arange(400) % 3
    features = rng.normal(size=(400, 5)).astype(np.float32)
    first = is_in_first_half(np.arange(400))
    decision, detector = _decide_ood(make_seen(MANY[0][:400], labels, features), None)
    assert decision.ood
    assert (decision.ood.samples, decision.ood.fitted_on) == (int(first.sum()), "val")
    ranked = np.sort(detector.score(torch.from_numpy(features[~first])).numpy())
    assert decision.ood.threshold == ranked[int(np.ceil(0.9 * (len(ranked) + 1))) - 1]


def decide_point(wish: Wish, seen: Seen) -> OperatingPoint:
    point = decide(wish, seen).point
    assert point
    return point


def test_class_shares_of_use_move_precision_but_not_recall() -> None:
    logits, labels = make_exact([[9, 1], [7, 3], [4, 6], [1, 19]], repeats=10)
    wish = Wish(point=parse_rule("recall>=0.8"), positive="b")
    plain = decide_point(wish, make_seen(logits, labels))
    shift = PriorShift(train=[21 / 50, 29 / 50], deploy=[0.98, 0.02])
    rare = decide_point(Wish(point=wish.point, positive="b", priors=shift), make_seen(logits, labels))
    assert plain.precision
    assert rare.precision
    assert rare.recall == plain.recall  # 25 of 29, at a probability of 0.6 or more
    assert plain.recall.value == pytest.approx(25 / 29)
    assert plain.precision.value == pytest.approx(25 / 30)
    alarms = 0.98 * 5 / 21, 0.02 * 25 / 29
    assert rare.precision.value == pytest.approx(alarms[1] / sum(alarms))
    odds = (0.6 / 0.4) * (0.02 / 0.98) * (21 / 29)
    assert rare.threshold == pytest.approx(odds / (1 + odds), rel=1e-3)


def test_logits_that_are_not_finite_are_refused() -> None:
    logits = MANY[0].copy()
    logits[[3, 5]] = np.nan
    with pytest.raises(ShardError, match="the logits of 2 of 400 pictures of val are not finite"):
        decide(Wish(), make_seen(logits, MANY[1]))


@pytest.mark.parametrize("balanced", [False, True])
def test_a_model_that_learned_other_class_shares_than_train_has_is_told(balanced: bool) -> None:
    """Of 21 to 29 pictures the exact model says so on average; one trained on equal classes overdoes the rarer."""
    logits, labels = make_exact([[9, 1], [14, 6], [4, 6]], repeats=5)
    priors = PriorShift(train=[27 / 40, 13 / 40], deploy=[0.9, 0.1])
    learned = logits + np.float32(balanced) * np.log([1 / 27, 1 / 13]).astype(np.float32)
    fitted = decide(Wish(temperature=False, priors=priors), make_seen(learned, labels)).fitted
    assert fitted
    sentence = "the model gives b 0.47 on average, but its share is 0.33: it seems to have learned other class shares"
    assert [note.startswith(sentence) for note in fitted.notes] == [True] * balanced


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("val", None),
        ("train", "fitted on train, the pictures that the weights"),
        ("test", "fitted on test: later results"),
    ],
)
def test_a_part_that_is_not_for_fitting_is_named_in_the_decision(part: str, words: str | None) -> None:
    fitted = decide(Wish(), make_seen(*MANY, part=part)).fitted
    assert fitted
    assert [note.startswith(words or "") for note in fitted.notes] == ([] if words is None else [True])


@pytest.mark.parametrize(
    ("wish", "labels", "sentence"),
    [
        (Wish(point=parse_rule("max-f1"), positive="c"), TWO[1], "val has 0 pictures of c among 50"),
        (
            Wish(priors=PriorShift(train=[0.2, 0.2, 0.6], deploy=[0.4, 0.4, 0.2])),
            TWO[1],
            "val has no pictures of c, so the effect",
        ),
        (Wish(temperature=False, level=0.99), TWO[1], "50 pictures are too few for a level of 0.99: 99 are needed"),
    ],
)
def test_what_the_part_cannot_tell_is_refused(wish: Wish, labels: Ints, sentence: str) -> None:
    logits = np.concatenate([TWO[0], np.full((50, 1), -3, np.float32)], axis=1)
    with pytest.raises(ShardError, match=sentence):
        decide(wish, make_seen(logits, labels))


def draw_positives(number: int, seed: int) -> tuple[np.ndarray, Ints]:
    """Uniform scores of as many positive pictures, and lower ones of others: a threshold t has a recall of 1 - t."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.random(number), -rng.random(50)]), np.repeat([1, 0], [number, 50])


@pytest.mark.parametrize(
    ("value", "percent", "number"), [(0.9, 95, 120), (0.98, 95, 149), (0.98, 50, 300), (0.7, 99, 40)]
)
def test_sure_threshold_is_the_first_whose_lower_bound_reaches_the_recall(
    value: float, percent: int, number: int
) -> None:
    """Were the recall below `value`, as many hits would be found with a probability of 100 - percent at most."""
    scores, labels = draw_positives(number, 0)
    rule, units = parse_rule(f"recall>={value} with {percent} %"), find_units(len(labels), None)
    threshold = choose_sure_threshold(rule, scores, labels == 1, "b", units)
    needed = next(k for k in range(1, number + 1) if binom.sf(k - 1, number, value) <= 1 - percent / 100)
    assert int((scores[labels == 1] >= threshold).sum()) == needed


def test_recall_falls_short_on_new_pictures_half_of_the_time_and_with_a_confidence_as_seldom_as_that_says() -> None:
    plain, sure = parse_rule("recall>=0.9"), parse_rule("recall>=0.9 with 95 %")
    short = {"plain": 0, "sure": 0}
    for seed in range(400):
        scores, labels = draw_positives(155, seed)
        found = list_candidates(scores, labels == 1, np.ones(len(labels)))
        short["plain"] += 1 - choose_threshold(plain, found, "b") < 0.9
        units = find_units(len(labels), None)
        short["sure"] += 1 - choose_sure_threshold(sure, scores, labels == 1, "b", units) < 0.9
    assert short["plain"] / 400 == pytest.approx(0.5, abs=0.08)
    assert 0.015 < short["sure"] / 400 < 0.07


def test_too_few_pictures_to_be_sure_are_told_with_how_many_are_needed() -> None:
    rule = parse_rule("recall>=0.98 with 95 %")
    scores, labels = draw_positives(148, 0)
    with pytest.raises(ShardError, match=r"^148 pictures of b are too few to be 0\.95 sure of a recall of 0\.98"):
        choose_sure_threshold(rule, scores, labels == 1, "b", find_units(len(labels), None))
    scores, labels = draw_positives(149, 0)  # as many as the sentence names
    assert choose_sure_threshold(rule, scores, labels == 1, "b", find_units(len(labels), None)) == scores[:149].min()


def test_groups_make_a_sure_threshold_lower_than_as_many_pictures_would() -> None:
    """Ten pictures of a group have nearly one score: they are little more than one picture."""
    rng = np.random.default_rng(1)
    scores = np.repeat(rng.random(60), 10) + rng.normal(0, 1e-3, 600)
    positives, rule = np.ones(600, np.bool_), parse_rule("recall>=0.8 with 95 %")
    groups = find_units(600, pa.array([str(number) for number in np.repeat(np.arange(60), 10)]))
    by_group, by_picture = (
        choose_sure_threshold(rule, scores, positives, "b", units) for units in (groups, find_units(600, None))
    )
    assert by_group < by_picture - 0.02
    with pytest.raises(ShardError, match=r"^600 pictures of b in 60 groups are too few to be 0\.95 sure"):
        choose_sure_threshold(parse_rule("recall>=0.99 with 95 %"), scores, positives, "b", groups)


def test_a_recall_that_is_not_sure_says_so_and_names_the_rule_that_is() -> None:
    logits, labels = make_exact([[30, 6], [5, 30], [1, 40]])
    plain = decide(Wish(point=parse_rule("recall>=0.9"), positive="b"), make_seen(logits, labels))
    assert plain.fitted
    (note,) = plain.fitted.notes
    remedy = note.partition("--point '")[2].partition("'")[0]
    assert note.startswith("recall 0.9 is reached on the pictures used to choose the threshold; on new ones about half")
    sure = decide(Wish(point=parse_rule(remedy), positive="b"), make_seen(logits, labels))
    assert sure.fitted
    assert plain.point
    assert sure.point
    assert sure.fitted.notes == []
    assert sure.point.rule == "recall>=0.9 with 95 %"
    assert sure.point.threshold < plain.point.threshold


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("precision>=0.9 with 95 %", "only recall takes a confidence; leave it out, or use recall>=0.98"),
        ("recall>=0.9 with 0.95 %", "a confidence is at least 50 % and below 100 %, got 0.95 %; use 95 %"),
        ("recall>=0.9 with 100 %", "a confidence is at least 50 % and below 100 %, got 100 %; use 95 %"),
        ("recall>=1 with 95 %", "no number of pictures can guarantee a recall of 1; use 0.99 or less"),
    ],
)
def test_a_confidence_that_means_nothing_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_rule(text)
    assert str(caught.value) == f"--point {text}: {sentence}"
    assert parse_rule("recall >= 0.9 with 95%").confidence == 0.95


def test_sets_by_class_are_fitted_to_the_pictures_of_each_class() -> None:
    logits, labels = MANY
    sets = decide(Wish(temperature=False, level=0.8, by_class=True), make_seen(logits, labels)).conformal
    assert sets
    assert sets.class_samples == np.bincount(labels).tolist()
    own = 1 - np.exp(logits.astype(float))[np.arange(len(labels)), labels]
    for number, threshold in enumerate(sets.thresholds):
        ordered = np.sort(own[labels == number])
        assert threshold == pytest.approx(ordered[int(np.ceil((len(ordered) + 1) * 0.8)) - 1], rel=1e-5)
