"""Bootstrap 95 % intervals of metrics for one label per picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.evaluate.metrics.log_odds import LogOdds
from trainer.evaluate.metrics.one_label import SPECIFICITIES
from trainer.evaluate.metrics.ranking import Ranked, rank_scores, sweep_thresholds
from trainer.evaluate.metrics.resampling import (
    BY_CLASS,
    RESAMPLES,
    TOO_MANY,
    Draws,
    Units,
    Values,
    average,
    bound_same,
    bound_values,
    list_unbounded,
    plan_draws,
    resample,
)
from trainer.evaluate.metrics.row_scores import TOP, RowScores, score_rows
from trainer.evaluate.metrics.rule import Rule

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_PROPORTIONS = ("accuracy", "top5_accuracy", "sensitivity", "specificity")


@dataclass(frozen=True)
class Answers:
    """A model's answers. labels, predicted: int64[N]; logits: float32[N, K]."""

    labels: Ints
    predicted: Ints
    logits: npt.NDArray[np.float32]

    @property
    def num_classes(self) -> int:
        return self.logits.shape[1]


def compute_intervals(
    answers: Answers, classes: list[str], rule: Rule, units: Units, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Return `interval`, the method, and `intervals`, [low, high] by name of metric.

    per_class has those of each class's precision, recall and f1. A metric without bounds from the resamples is absent,
    and interval.notes has the reason. ECE has none: it grows with noise, and a resample is noisier than the samples.

    Source: Efron and Tibshirani 1993, chapter 13 (percentile); Field and Welsh 2007 (cluster bootstrap).
    """
    numbers = _list_ranked(answers, rule)
    draws, rows = plan_draws(units, len(numbers), resamples), score_rows(answers.labels, answers.logits, rule)
    values = _resample(answers, rows, rule, draws, numbers)
    how = draws.describe()
    how["notes"] |= list_unbounded(rule.task)
    if not draws.ranked:
        how["notes"] |= dict.fromkeys(("auroc", "auprc", *SPECIFICITIES), TOO_MANY)
    intervals, notes = bound_values(values, classes, lambda name: _bound_sure(name, answers, rows, rule, units))
    how["notes"] |= notes
    return {"interval": how, "intervals": intervals}


def _list_ranked(answers: Answers, rule: Rule) -> range:
    """Return the classes whose log-odds rank the samples."""
    if answers.num_classes == 2 and rule.positive is not None:
        return range(rule.positive, rule.positive + 1)
    return range(answers.num_classes)


def _rank_classes(answers: Answers, rule: Rule, numbers: range) -> dict[int, Ranked]:
    odds = LogOdds(rule.task, answers.logits)
    return {number: rank_scores(answers.labels == number, odds.column(number)) for number in numbers}


def _resample(answers: Answers, rows: RowScores, rule: Rule, draws: Draws, numbers: range) -> Values:
    """Return each metric's values float64[resamples, ...]."""
    means = {"log_loss": rows.log_losses, "brier": rows.brier}
    if answers.num_classes > TOP:
        means["top5_accuracy"] = rows.in_top.astype(np.float64)
    ranked = _rank_classes(answers, rule, numbers) if draws.ranked else {}

    def judge(weights: Floats) -> Values:
        return _judge_counts(_weigh_counts(answers, weights), rule) | average(means, weights)

    width = max(len(answers.labels), 3 * answers.num_classes)
    return resample(draws, width, judge, partial(_judge_order, ranked, rule))


def _weigh_counts(answers: Answers, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Return weighted counts of correct predictions, labels and predictions per class, float64[B, K] each."""
    right = answers.labels == answers.predicted
    parts = (answers.labels[right], weights[:, right]), (answers.labels, weights), (answers.predicted, weights)
    hits, true, said = (_sum_classes(numbers, part, answers.num_classes) for numbers, part in parts)
    return hits, true, said


def _sum_classes(numbers: Ints, weights: Floats, num_classes: int) -> Floats:
    """Return float64[B, K], the sums of weights float64[B, n] by class numbers int64[n]."""
    rows = len(weights)
    cells = numbers + np.arange(rows)[:, None] * num_classes
    sums = np.bincount(cells.ravel(), weights.ravel(), minlength=rows * num_classes)
    return sums.astype(np.float64).reshape(rows, num_classes)


def _judge_counts(counts: tuple[Floats, Floats, Floats], rule: Rule) -> Values:
    """Return the metrics that depend on the counts of `_weigh_counts`, float64[B] each, by class float64[B, K]."""
    right, true, said = counts
    total, hits, present = true.sum(axis=1), right.sum(axis=1), true > 0
    precision, recall = right / np.maximum(said, 1), right / np.maximum(true, 1)
    table = {"precision": precision, "recall": recall, "f1": 2 * right / np.maximum(true + said, 1)}
    values = {"accuracy": hits / total, "balanced_accuracy": np.average(recall, axis=1, weights=present)}
    for name, column in table.items():
        values[f"macro_{name}"] = np.average(column, axis=1, weights=present)
        values[f"weighted_{name}"] = np.average(column, axis=1, weights=true)
        values[BY_CLASS + name] = np.where(present, column, np.nan)
    values |= _judge_agreement(hits, true, said, total)
    if rule.positive is not None:
        at, rest = rule.positive, total - true[:, rule.positive]
        values["sensitivity"] = np.where(present[:, at], recall[:, at], np.nan)
        false = said[:, at] - right[:, at]
        values["specificity"] = np.where(rest > 0, 1 - false / np.maximum(rest, 1), np.nan)
    return values


def _judge_agreement(hits: Floats, true: Floats, said: Floats, total: Floats) -> Values:
    """Return mcc and kappa; NaN if all samples are of one class.

    Source: Gorodkin 2004 (the MCC of several classes), Cohen 1960.
    """
    chance = (true * said).sum(axis=1)
    spread = (total**2 - (said**2).sum(axis=1)) * (total**2 - (true**2).sum(axis=1))
    mcc = np.where(spread > 0, (hits * total - chance) / np.sqrt(np.maximum(spread, 1e-300)), 0.0)
    kappa = (hits * total - chance) / np.maximum(total**2 - chance, 1e-300)
    defined = (true > 0).sum(axis=1) > 1
    return {"mcc": np.where(defined, mcc, np.nan), "kappa": np.where(defined, kappa, np.nan)}


def _judge_order(ranked: dict[int, Ranked], rule: Rule, weights: Floats) -> Values:
    """Return auroc and auprc, and sensitivities at a specificity if there is a positive class, float64[B] each."""
    values: Values = {}
    columns: dict[str, list[Floats]] = {"auroc": [], "auprc": []}
    for number, one in ranked.items():
        sweep = sweep_thresholds(one, weights)
        columns["auroc"].append(sweep.auroc())
        columns["auprc"].append(sweep.average_precision())
        if number == rule.positive:
            values |= {name: sweep.sensitivity_at(least) for name, least in SPECIFICITIES.items()}
    return values | {name: np.mean(column, axis=0) for name, column in columns.items()}


def _bound_sure(
    name: str, answers: Answers, rows: RowScores, rule: Rule, units: Units
) -> tuple[list[float], str] | None:
    """Return Wilson's interval of a proportion that is the same in all resamples, and a note about it."""
    if name not in _PROPORTIONS:
        return None
    labels, right = answers.labels, answers.predicted == answers.labels
    part = np.ones(len(labels), dtype=bool)
    if name == "top5_accuracy":
        right = rows.in_top
    elif name in ("sensitivity", "specificity"):
        part = (labels == rule.positive) == (name == "sensitivity")
        right = (answers.predicted == rule.positive) == (name == "sensitivity")
    return bound_same(right, units, part)
