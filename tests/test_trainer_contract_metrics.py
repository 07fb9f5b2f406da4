"""The table of metrics: each row is computed, compared, named and bounded as it says, or a sentence says what lacks."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from shards.cli.table import load_builder
from shards.errors import UsageError
from trainer.contract.metrics import METRICS, STOP_METRICS, Metric, describe_lack, is_lower_better, list_metrics
from trainer.contract.task import make_task
from trainer.evaluate.kinds import find_kind
from trainer.evaluate.metrics.many_labels import ManyLabelsScored
from trainer.evaluate.metrics.metrics import compute_metrics, select_scalars
from trainer.evaluate.metrics.one_label import SPECIFICITIES, OneLabelScored
from trainer.evaluate.metrics.resampling import find_units
from trainer.evaluate.metrics.rule import Scored, find_rule
from trainer.evaluate.predictions import Predictions
from trainer.recipes.file import load_recipe
from trainer.record.track.wandb_run import choose_summary

TABLE = "trainer/contract/metrics.py"
KINDS: dict[str, type[Scored]] = {"single-label": OneLabelScored, "multi-label": ManyLabelsScored}
SIZES = {"single-label": (2, 3, 8), "multi-label": (3,)}
"""Numbers of classes of the samples."""


def name_row(metric: Metric) -> str:
    return f"{metric.task}-{metric.key}"


each_row = pytest.mark.parametrize("metric", METRICS, ids=name_row)


def draw(task: str, num_classes: int, sure: float = 1.0) -> Scored:
    """Answers to 400 random samples, with many ties; the surer, the more often right."""
    rng = np.random.default_rng(num_classes)
    labels = rng.integers(0, num_classes, 400)
    flags = np.eye(num_classes, dtype=np.int64)[labels]
    if task == "multi-label":
        labels = flags = rng.integers(0, 2, (400, num_classes))
    logits = rng.normal(size=flags.shape).round(1) + sure * (2 * flags - 1 if task == "multi-label" else flags)
    classes = [f"c{number}" for number in range(num_classes)]
    return KINDS[task](labels, logits.astype(np.float32), classes, find_rule(make_task(task), classes))


def find_sensitivity(scored: Scored, least: float) -> float:
    """The best sensitivity of all thresholds whose specificity is at least `least`, by trying every one."""
    truth, scores = scored.labels == 1, scored.probabilities[:, 1]
    said = scores >= np.append(np.unique(scores), np.inf)[:, None]
    specificity = (~said[:, ~truth]).mean(axis=1)
    return float(said[:, truth].mean(axis=1)[specificity >= least].max())


def find_calibration_error(scored: Scored) -> float:
    """Over 15 bins of the highest probability, open below: share of samples times |accuracy - mean probability|."""
    best = scored.probabilities.max(axis=1)
    right = scored.logits.argmax(axis=1) == scored.labels
    bins = [(best > low / 15) & (best <= (low + 1) / 15) for low in range(15)]
    return sum(float(each.mean() * abs(right[each].mean() - best[each].mean())) for each in bins if each.any())


def binary(scored: Scored) -> bool:
    return len(scored.classes) == 2


def score(scored: Scored) -> np.ndarray:
    """Probabilities as scikit-learn takes them."""
    return scored.probabilities[:, 1] if binary(scored) else scored.probabilities


def rank_truth(scored: Scored) -> np.ndarray:
    """Whether the label is among the first five; of equals the lower number comes first, as in argmax."""
    best = np.argsort(-scored.logits, axis=1, kind="stable")[:, :5]
    return (best == scored.labels[:, None]).any(axis=1)


def truth_and_said(function: Callable[..., float], **options: Any) -> Callable[[Scored], float]:
    return lambda scored: function(scored.labels, scored.predicted, **options)


def truth_and_shares(function: Callable[..., float], **options: Any) -> Callable[[Scored], float]:
    return lambda scored: function(scored.labels, scored.probabilities, **options)


ONE: dict[str, Callable[[Scored], float | None]] = {
    "accuracy": truth_and_said(sk.accuracy_score),
    "balanced_accuracy": truth_and_said(sk.balanced_accuracy_score),
    "macro_precision": truth_and_said(sk.precision_score, average="macro"),
    "weighted_precision": truth_and_said(sk.precision_score, average="weighted"),
    "macro_recall": truth_and_said(sk.recall_score, average="macro"),
    "weighted_recall": truth_and_said(sk.recall_score, average="weighted"),
    "macro_f1": truth_and_said(sk.f1_score, average="macro"),
    "weighted_f1": truth_and_said(sk.f1_score, average="weighted"),
    "mcc": truth_and_said(sk.matthews_corrcoef),
    "kappa": truth_and_said(sk.cohen_kappa_score),
    "top5_accuracy": lambda of: rank_truth(of).mean() if len(of.classes) > 5 else None,
    "auroc": lambda of: sk.roc_auc_score(of.labels, score(of), multi_class="ovr"),
    "auprc": lambda of: sk.average_precision_score(
        of.labels if binary(of) else np.eye(len(of.classes), dtype=int)[of.labels], score(of)
    ),
    "sensitivity": lambda of: sk.recall_score(of.labels, of.predicted) if binary(of) else None,
    "specificity": lambda of: sk.recall_score(1 - of.labels, 1 - of.predicted) if binary(of) else None,
    "sensitivity_at_specificity_90": lambda of: find_sensitivity(of, 0.90) if binary(of) else None,
    "sensitivity_at_specificity_95": lambda of: find_sensitivity(of, 0.95) if binary(of) else None,
    "log_loss": truth_and_shares(sk.log_loss),
    "brier": lambda of: sk.brier_score_loss(of.labels, score(of), labels=range(len(of.classes))),
    "ece": find_calibration_error,
}
MANY: dict[str, Callable[[Scored], float | None]] = {
    "subset_accuracy": truth_and_said(sk.accuracy_score),
    "hamming_loss": truth_and_said(sk.hamming_loss),
    "micro_f1": truth_and_said(sk.f1_score, average="micro"),
    "log_loss": lambda of: np.mean([sk.log_loss(*pair) for pair in zip(of.labels.T, of.probabilities.T, strict=True)]),
    "macro_f1": truth_and_said(sk.f1_score, average="macro"),
    "map": truth_and_shares(sk.average_precision_score, average="macro"),
    "auroc": truth_and_shares(sk.roc_auc_score, average="macro"),
    "micro_auroc": truth_and_shares(sk.roc_auc_score, average="micro"),
}
REFERENCES = {"single-label": ONE, "multi-label": MANY}
"""What each metric is: scikit-learn's, or its definition; None where these samples have no such figure."""


@functools.cache
def compute(task: str, num_classes: int, sure: float = 1.0) -> dict[str, float]:
    """The single numbers of what `draw` draws."""
    of = draw(task, num_classes, sure)
    return select_scalars(compute_metrics(of.labels, of.logits, of.classes, of.rule))


# a row and its function


def name_builders() -> Iterator[str]:
    """Every function of the modules that rows name which takes what a builder takes."""
    kinds = {kind.__name__ for kind in KINDS.values()}
    for module in sorted({metric.builder.partition(":")[0] for metric in METRICS}):
        for name, function in inspect.getmembers(importlib.import_module(module), inspect.isfunction):
            takes = [parameter.annotation for parameter in inspect.signature(function).parameters.values()]
            if function.__module__ == module and not name.startswith("_") and len(takes) == 1 and takes[0] in kinds:
                yield f"{module}:{name}"


@each_row
def test_row_names_a_function_that_is_there(metric: Metric) -> None:
    try:
        load_builder(metric.builder)
    except (ImportError, AttributeError):
        pytest.fail(f"{TABLE} has the row '{metric.key}', and there is no {metric.builder}: write it, or name another")


def test_every_function_of_samples_has_a_row() -> None:
    bare = set(name_builders()) - {metric.builder for metric in METRICS}
    assert not bare, f"{TABLE} has no row for {', '.join(sorted(bare))}: add one, or a _ before a part of a metric"


@each_row
def test_value_is_that_of_scikit_learn_or_of_the_definition(metric: Metric) -> None:
    definition = REFERENCES[metric.task].get(metric.key)
    if definition is None:
        pytest.fail(
            f"{TABLE} has the row '{metric.key}', and REFERENCES here does not say what its value is: add a line, by "
            "scikit-learn or by the definition"
        )
    values = []
    for size in SIZES[metric.task]:
        values.append(expected := definition(draw(metric.task, size)))
        assert compute(metric.task, size).get(metric.key) == (None if expected is None else pytest.approx(expected))
    assert any(value is not None for value in values)


@each_row
def test_right_answers_are_better_than_wrong_ones(metric: Metric) -> None:
    for size in SIZES[metric.task]:
        wrong, right = (compute(metric.task, size, sure).get(metric.key) for sure in (-2.0, 20.0))
        if wrong is not None and right is not None:
            assert (right < wrong) is metric.lower_is_better, (
                f"{TABLE}: lower_is_better of '{metric.key}' is the wrong way round"
            )


@pytest.mark.parametrize("task", KINDS)
def test_single_numbers_are_those_of_the_table_in_its_order(task: str) -> None:
    there = [name for size in SIZES[task] for name in compute(task, size)]
    assert set(there) == {"samples", *(metric.key for metric in list_metrics(task))}
    for size in SIZES[task]:
        names = list(compute(task, size))[1:]
        assert names == [metric.key for metric in list_metrics(task) if metric.key in names]


@pytest.mark.parametrize("task", KINDS)
def test_metric_has_an_interval_or_a_reason(task: str) -> None:
    for size in SIZES[task]:
        of = draw(task, size)
        known: Any = None  # nothing is known of the samples, and nothing is asked
        predictions = Predictions(of.classes, of.classes, of.labels, of.logits, known, dict(of.rule.task.facts))
        found = find_kind(of.rule.task).bound(predictions, of.predicted, of.rule, find_units(len(of.labels), None))
        lacking = compute(task, size).keys() - {"samples", *found["intervals"], *found["interval"]["notes"]}
        assert not lacking, (
            f"{', '.join(sorted(lacking))} of {TABLE} have no interval: resample them in trainer/evaluate/metrics, or "
            "say why not in the row, as `unbounded`"
        )


# what derives from the rows

FIRST = {"single-label": "accuracy", "multi-label": "map"}
"""By which an epoch is chosen where a recipe names nothing: mAP needs no threshold, and rare classes count as much."""


@each_row
def test_metric_chooses_an_epoch_where_its_row_has_a_place(metric: Metric) -> None:
    given = ["data=x", f"stop.metric={metric.key}"]
    if metric.key not in STOP_METRICS:
        with pytest.raises(UsageError, match=r"^stop\.metric: input should be 'accuracy', .*, got '" + metric.key):
            load_recipe("smoke", given)
        return
    stop = load_recipe("smoke", given).stop
    assert stop.lower_is_better is metric.lower_is_better
    assert (stop.gain(0.6, 0.5) > 0) is not metric.lower_is_better


@each_row
def test_chart_of_a_run_keeps_the_best_value(metric: Metric) -> None:
    best = "min" if metric.lower_is_better else "max"
    assert (choose_summary(f"val/{metric.key}"), choose_summary(f"val/{metric.key} (a class)")) == (best, best)


def test_metric_of_both_tasks_is_one_thing_to_people() -> None:
    for metric in METRICS:
        others = [other for other in METRICS if other.key == metric.key]
        assert {(other.name, other.lower_is_better) for other in others} == {(metric.name, metric.lower_is_better)}
        assert is_lower_better(metric.key) is metric.lower_is_better
    assert len({(metric.task, metric.key) for metric in METRICS}) == len(METRICS)


@pytest.mark.parametrize("task", KINDS)
def test_every_task_has_a_first_choice_a_headline_and_one_share_of_right_answers(task: str) -> None:
    assert [list_metrics(task, place)[0].key for place in ("stop", "headline")] == [FIRST[task]] * 2
    assert len([metric for metric in list_metrics(task) if metric.counts_right]) == 1


def test_specificities_are_those_of_the_names() -> None:
    assert {name: round(100 * share) for name, share in SPECIFICITIES.items()} == {
        "sensitivity_at_specificity_90": 90,
        "sensitivity_at_specificity_95": 95,
    }


LABELS = {
    "single-label": [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[1, 0, 0], [0, 1, 0], [0, 1, 0]],
        [[1, 0, 0], [1, 0, 0]],
        [[1, 0], [0, 1]],
        [[1, 0], [1, 0]],
        [[1], [1]],
    ],
    "multi-label": [
        [[1, 0, 0], [0, 1, 1], [0, 0, 0]],
        [[1, 0, 0], [1, 0, 0]],
        [[1, 1], [1, 1]],
        [[0, 0], [0, 0]],
        [[1, 1], [0, 0]],
    ],
}
"""Rows of 0 and 1, by class: samples that have all, lack a class, are all of one, have all labels, or none."""


@pytest.mark.parametrize("metric", [row for row in METRICS if row.needs != "positive class"], ids=name_row)
def test_lack_is_described_exactly_where_the_samples_do_not_define_the_metric(metric: Metric) -> None:
    found = []
    for rows in LABELS[metric.task]:
        flags = np.array(rows)
        labels = flags.argmax(axis=1) if metric.task == "single-label" else flags
        classes = [f"c{number}" for number in range(flags.shape[1])]
        logits = np.random.default_rng(0).normal(size=flags.shape).astype(np.float32)
        computed = compute_metrics(labels, logits, classes, find_rule(make_task(metric.task), classes))
        if metric.key == "top5_accuracy":  # of few classes there is none, whatever the samples
            continue
        lack = describe_lack(metric, flags.sum(axis=0).tolist(), len(flags), classes)
        assert (lack is None) == (metric.key in computed), (
            f"{metric.key}: of the labels {rows} the row says it {'exists' if lack is None else f'does not ({lack})'}, "
            "and its function says otherwise; mend `needs`, or let the function return a sentence where it has no value"
        )
        found.append(lack)
    assert metric.needs == "nothing" or any(found)


def test_no_metric_that_chooses_an_epoch_depends_on_the_positive_class() -> None:
    assert not [row.key for row in METRICS if row.stop is not None and row.needs == "positive class"]
