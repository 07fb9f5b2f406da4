"""Decisions and intervals where each class is a question of its own: known by hand, then by command."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError
from sklearn import metrics as sk

import trainer.decide.__main__ as trainer_decide
import trainer.evaluate.__main__ as trainer_evaluate
import trainer.predict.__main__ as trainer_predict
from shards.cli.ending import run_command
from shards.errors import ShardError, UsageError
from trainer.contract.bundle import Bundle, read_bundle_page
from trainer.contract.decision.conformal import ConformalSets
from trainer.contract.decision.decision import Decision, answer
from trainer.contract.decision.operating_point import Interval, OperatingPoint, parse_rule
from trainer.contract.task import MANY_LABELS
from trainer.decide.decision import fit_decision
from trainer.decide.seen import Seen
from trainer.decide.temperature import fit_temperature_each
from trainer.decide.wish import Wish
from trainer.evaluate.files import write_evaluation
from trainer.evaluate.metrics.metrics import compute_metrics, select_scalars
from trainer.evaluate.metrics.multi_label_intervals import compute_multi_label_intervals, resample_multi_label
from trainer.evaluate.metrics.resampling import Units, bound_mean, find_units, list_unbounded, plan_draws
from trainer.evaluate.metrics.rule import find_rule
from trainer.evaluate.predictions import Predictions

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

CLASSES = ["a", "b", "c"]
RULE = find_rule(MANY_LABELS, CLASSES)
Ints = npt.NDArray[np.int64]
Floats32 = npt.NDArray[np.float32]


def make_exact(columns: list[list[tuple[int, int]]]) -> tuple[Floats32, Ints]:
    """Logits and labels of a class a column whose probabilities are exact: (yes, no) pictures with yes / (yes + no)."""
    logits, labels = [], []
    for blocks in columns:
        logits.append([math.log(yes / no) for yes, no in blocks for _ in range(yes + no)])
        labels.append([flag for yes, no in blocks for flag in [1] * yes + [0] * no])
    return np.array(logits, np.float32).T, np.array(labels).T


EXACT = make_exact([[(9, 1), (2, 8), (5, 5)], [(1, 9), (3, 7), (9, 1)]])


def see(logits: Floats32, labels: Ints, groups: list[str] | None = None, part: str = "val") -> Seen:
    bare = np.zeros((len(labels), 0), np.float32)
    told = None if groups is None else pa.array(groups)
    return Seen(MANY_LABELS, "d" * 64, part, np.arange(len(labels)), labels, logits, bare, told)  # type: ignore[arg-type]


def fit(logits: Floats32, labels: Ints, **wish: Any) -> Decision:
    classes = CLASSES[: labels.shape[1]]
    return fit_decision(Wish(temperature=False, **wish), classes, see(logits, labels), None, []).decision


def make_point(positive: str, threshold: float) -> OperatingPoint:
    share = Interval(value=1, low=1, high=1, count=1)
    return OperatingPoint(
        rule="max-f1", positive=positive, threshold=threshold, recall=share, precision=share, specificity=share
    )


# the temperature


@pytest.mark.parametrize("temperature", [0.02, 1.0, 2.5, 300.0])
def test_temperature_by_which_exact_logits_were_multiplied_is_found(temperature: float) -> None:
    logits, labels = EXACT
    found = fit_temperature_each(logits * np.float32(temperature), labels)
    assert found.temperature == pytest.approx(temperature, rel=1e-4)


def test_loss_after_the_temperature_is_the_entropy_of_exact_probabilities() -> None:
    logits, labels = EXACT
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    entropy = -float((labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean())
    found = fit_temperature_each(logits * 4, labels)
    assert found.log_loss_after == pytest.approx(entropy, rel=1e-6)
    assert found.log_loss_before > entropy + 0.1


def test_answers_without_a_mistake_leave_the_temperature_open() -> None:
    labels = np.array([[0, 1], [1, 1]])
    assert fit_temperature_each((2 * labels - 1).astype(np.float32), labels).temperature is None


def test_logits_that_say_the_opposite_are_refused() -> None:
    with pytest.raises(ShardError, match=r"the logits carry no information about the labels of these 30 pictures"):
        fit_temperature_each(-EXACT[0], EXACT[1])


# operating points

SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.1])
LOGITS = np.log(np.stack([SCORES, SCORES[::-1]], axis=1) / np.stack([1 - SCORES, 1 - SCORES[::-1]], axis=1))
LOGITS = LOGITS.astype(np.float32)
LABELS = np.array([[1, 1, 0, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1, 0, 1]]).T
"""a is there at 0.9, 0.8, 0.6 and 0.3; b at 0.8 and 0.1 of eight, counted from the other end."""


def test_every_class_gets_the_threshold_that_its_goal_asks_for() -> None:
    """Three of four of a are at 0.6 and above, where one is not; both of b at 0.7 and above: 0.9 and 0.7."""
    labels = LABELS.copy()
    labels[:, 1] = np.array([0, 0, 0, 0, 0, 1, 0, 1])  # b's scores rise: 0.7 and 0.9
    points = fit(LOGITS, labels, point=parse_rule("recall>=0.75")).points or []
    assert [point.positive for point in points] == ["a", "b"]
    assert [point.threshold for point in points] == pytest.approx([0.6, 0.7], rel=1e-6)
    assert [point.recall.value for point in points] == [3 / 4, 1.0]
    assert [point.precision.value for point in points if point.precision] == [3 / 4, 2 / 3]
    assert [point.specificity.value for point in points] == [3 / 4, 5 / 6]


def test_one_class_may_be_the_only_one_with_a_threshold() -> None:
    decision = fit(LOGITS, LABELS, point=parse_rule("recall>=1"), positive="a")
    assert [(point.positive, round(point.threshold, 6)) for point in decision.points or []] == [("a", 0.3)]
    said = answer(torch.logit(torch.tensor([0.35, 0.45])), ["a", "b"], decision)
    assert said.labels == ["a"]


def test_class_that_no_picture_has_keeps_its_threshold_and_is_named() -> None:
    labels = LABELS.copy()
    labels[:, 1] = 0
    decision = fit(LOGITS, labels, point=parse_rule("max-f1"))
    assert [point.positive for point in decision.points or []] == ["a"]
    assert decision.fitted is not None
    assert "b: val has no pictures with it, or none without, so its threshold is unchanged" in decision.fitted.notes
    with pytest.raises(
        ShardError, match=r"^val has no pictures with b, or none without, of 8; an operating point needs"
    ):
        fit(LOGITS, labels, point=parse_rule("max-f1"), positive="b")


def test_goal_that_one_class_cannot_reach_is_an_error_that_names_it() -> None:
    labels = LABELS.copy()
    labels[:, 1] = 1 - (LOGITS[:, 1] > 2)  # all but the most probable
    with pytest.raises(ShardError, match=r"^no threshold on b reaches precision 0\.95"):
        fit(LOGITS, labels, point=parse_rule("precision>=0.95"))


def test_distance_is_to_one_gaussian_around_all_pictures_whatever_their_labels() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (200, 2))
    seen = Seen(
        MANY_LABELS,
        "d" * 64,
        "val",
        np.arange(200),
        labels,
        (2 * labels - 1).astype(np.float32),
        rng.normal(size=(200, 5)).astype("f"),
    )
    found = fit_decision(Wish(temperature=False, kept=0.9, ood_score="mahalanobis"), CLASSES[:2], seen, seen, [])
    assert found.detector is not None
    assert found.detector.means.shape == (1, 5)


# answers


def test_answer_has_the_classes_that_reach_their_own_thresholds_at_the_temperature() -> None:
    decision = Decision(rule="each", temperature=2.0, points=[make_point("b", 0.9), make_point("c", 0.2)])
    said = answer(torch.tensor([-1.0, 4.0, -2.0]), CLASSES, decision)
    assert list(said.probabilities.values()) == pytest.approx([1 / (1 + math.exp(-z)) for z in (-0.5, 2, -1)])
    assert (said.label, said.labels) == ("c", ["c"])  # b has 0.88 and needs 0.9, c 0.27 and needs 0.2
    assert said.probability == said.probabilities["c"]


def test_answer_of_nothing_has_the_probability_of_the_most_probable_class() -> None:
    decision = Decision(rule="each", points=[make_point("a", 0.99)])
    said = answer(torch.tensor([3.0, -1.0, -2.0]), CLASSES, decision)
    assert (said.label, said.labels, said.probability) == (None, [], said.probabilities["a"])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"rule": "argmax", "points": [make_point("a", 0.5)]}, "with the rule argmax must not have points"),
        ({"rule": "each", "point": make_point("a", 0.5)}, "with the rule each must not have point"),
        ({"rule": "each", "abstain_below": 0.5}, "with the rule each must not have abstain_below"),
        ({"rule": "each", "points": [make_point("a", 0.5), make_point("a", 0.6)]}, "a class has two operating points"),
        ({"rule": "each", "points": []}, "at least 1 item"),
    ],
)
def test_decision_that_contradicts_its_rule_is_invalid(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Decision(**fields)


def test_sets_belong_to_one_label() -> None:
    sets = ConformalSets(score="lac", level=0.9, thresholds=[0.5], mean_size=1.0, samples=9)
    with pytest.raises(ValidationError, match="with the rule each must not have conformal"):
        Decision(rule="each", conformal=sets)


# intervals


def draw(samples: int, seed: int = 0) -> tuple[Ints, Floats32]:
    rng = np.random.default_rng(seed)
    labels = (rng.random((samples, 3)) < (0.6, 0.3, 0.4)).astype(np.int64)
    return labels, (2 * labels - 1 + rng.normal(0, 1.2, labels.shape)).astype(np.float32)


def test_every_metric_of_a_resample_is_that_of_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are numbers of copies: the metrics of the copies are computed as any others."""
    times = np.random.default_rng(3).integers(0, 3, (4, 200))
    monkeypatch.setattr(Units, "draw", lambda *_: times.astype(np.float64))
    labels, logits = draw(200)
    logits = logits.round(1)  # ties, also between classes
    predicted = RULE.predict(logits, MANY_LABELS.compute_probabilities(logits))
    values = resample_multi_label(labels, logits, predicted, plan_draws(find_units(200, None), 4, 4))
    copies = [(np.repeat(labels, row, axis=0), np.repeat(logits, row, axis=0)) for row in times]
    metrics = [compute_metrics(*copy, CLASSES, RULE) for copy in copies]
    for name in select_scalars(metrics[0]):
        if name not in ("samples", *list_unbounded(MANY_LABELS)):
            assert values.pop(name).tolist() == pytest.approx([one[name] for one in metrics]), name
    for name in ("precision", "recall", "f1", "average_precision", "auroc"):
        expected = [[row[name] for row in one["per_class"].values()] for one in metrics]
        assert values.pop(f"class/{name}") == pytest.approx(np.array(expected)), name
    assert values == {}


def test_interval_is_that_of_resamples_with_scikit_learn() -> None:
    labels, logits = draw(150)
    predicted = RULE.predict(logits, MANY_LABELS.compute_probabilities(logits))
    found = compute_multi_label_intervals(labels, logits, predicted, CLASSES, find_units(150, None))["intervals"]
    rng = np.random.default_rng(9)
    drawn = [rng.integers(0, 150, 150) for _ in range(400)]
    maps = [sk.average_precision_score(labels[rows], logits[rows], average="macro") for rows in drawn]
    f1s = [sk.f1_score(labels[rows], predicted[rows], average="micro") for rows in drawn]
    for name, values in (("map", maps), ("micro_f1", f1s)):
        assert found[name] == pytest.approx(np.quantile(values, (0.025, 0.975)), abs=0.012), name


def test_intervals_hold_the_truth_95_times_of_100() -> None:
    """Of the share of pictures whose labels are all right, drawn with probability 0.7."""
    rng, held = np.random.default_rng(1), 0
    for _ in range(300):
        right = rng.random(160) < 0.7
        labels = np.zeros((160, 2), np.int64)
        predicted = np.stack([1 - right.astype(np.int64), labels[:, 0]], axis=1)
        made = compute_multi_label_intervals(
            labels, np.zeros((160, 2), np.float32), predicted, ["a", "b"], find_units(160, None), 200
        )
        low, high = made["intervals"]["subset_accuracy"]
        held += low <= 0.7 <= high
    assert held / 300 == pytest.approx(0.95, abs=2 * math.sqrt(0.95 * 0.05 / 300))


def test_intervals_by_group_are_wider_where_pictures_of_a_group_are_alike() -> None:
    """Eight copies of each picture: sqrt(8) times as wide. Source: Kish 1965."""
    labels, logits = (np.repeat(part, 8, axis=0) for part in draw(400))
    predicted = RULE.predict(logits, MANY_LABELS.compute_probabilities(logits))
    widths = {}
    for name, groups in (("sample", None), ("group", pa.array([str(number // 8) for number in range(3200)]))):
        made = compute_multi_label_intervals(labels, logits, predicted, CLASSES, find_units(3200, groups), 500)
        assert made["interval"]["by"] == name
        low, high = made["intervals"]["subset_accuracy"]
        widths[name] = high - low
    assert widths["group"] / widths["sample"] == pytest.approx(math.sqrt(8), rel=0.12)


def test_class_that_resamples_often_lack_has_no_interval_of_its_own() -> None:
    labels, logits = draw(50)
    labels[:, 1] = 0
    labels[7, 1] = 1
    predicted = RULE.predict(logits, MANY_LABELS.compute_probabilities(logits))
    found = compute_multi_label_intervals(labels, logits, predicted, CLASSES, find_units(50, None))["intervals"]
    assert "recall" not in found["per_class"]["b"]
    assert "recall" in found["per_class"]["a"]
    assert found["map"][0] < found["map"][1]


# saved rows


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ints, Floats32]:
    """The folder of an evaluation of 90 samples in groups of three, by nothing but its rows."""
    folder, (labels, logits) = tmp_path_factory.mktemp("saved"), draw(90)
    known = pa.table(
        {
            "sample_id": np.arange(90),
            "path": [f"{number}.png" for number in range(90)],
            "group": [f"patient {number // 3}" for number in range(90)],
            "site": ["east" if number < 60 else "west" for number in range(90)],
        }
    )
    facts = {"part": "test", "bundle": "0" * 64, "dataset": "1" * 64, "task": "multi-label"}
    write_evaluation(folder, Predictions(CLASSES, CLASSES, labels, logits, known, facts))
    return folder, labels, logits


def run(main: Callable[[list[str]], int], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(main, [str(argument) for argument in arguments])
    return code, out.getvalue(), err.getvalue()


def judge(folder: Path, out: Path, *options: str) -> tuple[dict[str, Any], str]:
    code, printed, err = run(trainer_evaluate.main, "--rows", folder / "predictions.parquet", "--out", out, *options)
    assert code == 0, err
    result: dict[str, Any] = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return result, printed


def test_threshold_is_that_of_every_class_or_of_one(saved: tuple[Path, Ints, Floats32], tmp_path: Path) -> None:
    folder, labels, logits = saved
    result, _ = judge(folder, tmp_path / "all", "--threshold", "0.3")
    predicted = MANY_LABELS.compute_probabilities(logits) >= 0.3
    assert result["decision"] == {"rule": "each", "threshold": 0.3}
    assert result["micro_f1"] == pytest.approx(sk.f1_score(labels, predicted, average="micro"))
    low, high = result["intervals"]["micro_f1"]
    assert low < result["micro_f1"] < high
    assert result["interval"]["by"] == "group"
    result, _ = judge(folder, tmp_path / "one", "--threshold", "0.3", "--positive", "b")
    predicted = MANY_LABELS.compute_probabilities(logits) >= (0.5, 0.3, 0.5)
    assert result["decision"] == {"rule": "each", "thresholds": {"a": 0.5, "b": 0.3, "c": 0.5}}
    assert result["micro_f1"] == pytest.approx(sk.f1_score(labels, predicted, average="micro"))


def test_slices_have_their_own_metrics(saved: tuple[Path, Ints, Floats32], tmp_path: Path) -> None:
    folder, labels, logits = saved
    result, printed = judge(folder, tmp_path, "--by", "site")
    predicted = (MANY_LABELS.compute_probabilities(logits) >= 0.5).astype(int)
    for row, part in zip(result["slices"]["site"], (slice(60), slice(60, 90)), strict=True):
        assert row["subset_accuracy"] == pytest.approx((predicted == labels)[part].all(axis=1).mean())
        assert row["map"] == pytest.approx(sk.average_precision_score(labels[part], logits[part], average="macro"))
        right = (predicted == labels)[part].all(axis=1)
        assert row["interval"] == bound_mean(right, Units("group", np.arange(len(right)) // 3, len(right) // 3))
        assert f"site {row['value']}: mAP {row['map']:.4f}, macro F1 " in printed
    header = (tmp_path / "slices.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header.replace('"', "").startswith("column,value,samples,subset_accuracy,low,high,hamming_loss,")


def test_headline_has_intervals(saved: tuple[Path, Ints, Floats32], tmp_path: Path) -> None:
    result, printed = judge(saved[0], tmp_path)
    low, high = result["intervals"]["map"]
    assert printed.startswith(f"test: mAP {result['map']:.4f} [{low:.4f}, {high:.4f}], macro F1 ")


def test_positive_class_without_a_threshold_says_nothing(saved: tuple[Path, Ints, Floats32], tmp_path: Path) -> None:
    rows = saved[0] / "predictions.parquet"
    code, _, err = run(trainer_evaluate.main, "--rows", rows, "--out", tmp_path / "x", "--positive", "b")
    assert code == 2
    assert err == (
        "error: --positive b alone has no effect with several labels per picture: the metrics of each class are "
        "reported anyway; add --threshold\n"
    )
    with pytest.raises(UsageError, match="--threshold is a probability"):
        find_rule(MANY_LABELS, CLASSES, None, 1.5)


# by command


@pytest.fixture
def bundle(several_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(several_run / "bundle", tmp_path / "bundle"))


def decide(*arguments: str | Path) -> str:
    code, printed, err = run(trainer_decide.main, *arguments)
    assert code == 0, err
    return printed


def test_decision_of_several_labels_is_stored_used_checked_and_reset(bundle: Path, multi_path: Path) -> None:
    before, plain = read_bundle_page(bundle), predict(bundle, multi_path.parent / "shapes")
    said = decide(bundle, multi_path, "--point", "recall>=0.9", "--ood", "0.9")
    page = read_bundle_page(bundle)
    points = {point.positive: point for point in page.decision.points or []}
    assert list(points) == page.classes
    assert said.count("for recall>=0.9") == 3
    assert min(point.recall.value for point in points.values()) >= 0.9
    for old, row in zip(plain, predict(bundle, multi_path.parent / "shapes"), strict=True):
        assert page.decision.temperature is not None
        odds = {name: (p / (1 - p)) ** (1 / page.decision.temperature) for name, p in old["probabilities"].items()}
        shares = row["probabilities"]
        assert shares == pytest.approx({name: value / (1 + value) for name, value in odds.items()}, rel=1e-3)
        assert row["labels"] == [name for name, share in shares.items() if share >= points[name].threshold]
        assert row["abstain"] == (row["ood_score"] > page.decision.ood.threshold)  # type: ignore[union-attr]
        assert "decision" not in row
    checked = json.loads(decide(bundle, multi_path, "--check", "--json"))
    assert checked["samples"] == 56
    assert set(checked["classes"]) == set(page.classes)
    assert checked["classes"]["disc"]["recall"]["count"] == 32
    assert decide(bundle, multi_path, "--check").startswith("labels       all right for ")
    assert decide(bundle, "--reset").startswith("decision     every class whose own probability is at least 0.5")
    assert read_bundle_page(bundle) == before


def predict(bundle: Path, pictures: Path) -> list[dict[str, Any]]:
    code, printed, err = run(trainer_predict.main, bundle, pictures / "test*.png", "--json")
    assert code == 0, err
    return [json.loads(line) for line in printed.splitlines()]


def test_check_counts_what_predict_says(bundle: Path, multi_path: Path) -> None:
    decide(bundle, multi_path, "--point", "max-f1", "--positive", "disc")
    checked = json.loads(decide(bundle, multi_path, "--check", "--json"))
    listed = (multi_path.parent / "shapes/list.csv").read_text(encoding="utf-8").splitlines()
    truth = {path: labels.split(";") for path, labels, _ in (line.split(",") for line in listed[1:])}
    rows = predict(bundle, multi_path.parent / "shapes")
    there = [("disc" in truth[Path(row["path"]).name], "disc" in row["labels"]) for row in rows]
    hits = sum(true and said for true, said in there)
    assert checked["classes"]["disc"]["recall"]["value"] == pytest.approx(hits / 32)
    assert checked["right"]["value"] == pytest.approx(
        sum(truth[Path(row["path"]).name] == row["labels"] for row in rows) / 56
    )


def test_predictions_as_csv_have_no_column_that_means_nothing(bundle: Path, multi_path: Path, tmp_path: Path) -> None:
    decide(bundle, multi_path)
    code, _, err = run(
        trainer_predict.main, bundle, multi_path.parent / "shapes/test0.png", "--out", tmp_path / "out.csv"
    )
    assert code == 0, err
    header, row = (line.split(",") for line in (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines())
    assert header[:5] == ["path", "label", "probability", "decision", "abstain"]
    assert row[3] == row[1]  # all that are there
    assert header[5:] == ["probability_bars", "probability_disc", "probability_square"]


def test_point_of_a_class_that_is_none_makes_a_page_invalid(bundle: Path, multi_path: Path) -> None:
    decide(bundle, multi_path, "--point", "max-f1", "--positive", "disc")
    text = (bundle / "bundle.json").read_text(encoding="utf-8")
    (bundle / "bundle.json").write_text(text.replace('"positive": "disc"', '"positive": "ring"'), encoding="utf-8")
    with pytest.raises(ShardError, match="the decision is about ring, which is not one of the classes"):
        read_bundle_page(bundle)


@pytest.mark.parametrize("option", [("--conformal", "0.9"), ("--abstain-below", "0.5"), ("--deploy-prior", "disc=0.2")])
def test_what_is_for_one_label_is_refused(bundle: Path, multi_path: Path, option: tuple[str, str]) -> None:
    before = read_bundle_page(bundle)
    code, _, err = run(trainer_decide.main, bundle, multi_path, *option)
    assert (code, read_bundle_page(bundle)) == (2, before)
    assert err == (
        f"error: {option[0]} is for one label per picture, but this bundle gives any number; use "
        "--temperature, --point or --ood\n"
    )


def test_dataset_of_the_other_kind_is_refused(bundle: Path, dataset_path: Path) -> None:
    code, _, err = run(trainer_decide.main, bundle, dataset_path)
    assert code == 2
    assert "the bundle is multi-label, but the dataset is single-label; labels cannot be compared" in err


def test_bundle_with_points_is_loaded_and_answers_alike(bundle: Path, multi_path: Path) -> None:
    decide(bundle, multi_path, "--point", "recall>=0.9")
    loaded = Bundle.load(bundle)
    logits = torch.tensor([0.1, -0.3, 0.2])
    assert loaded.answer(logits) == answer(logits, loaded.page.classes, loaded.page.decision)
