"""95 % intervals by the bootstrap: samples, or whole groups of them, are drawn anew with replacement.

A resample is a weighting of the samples, and each metric is computed for a block of weightings at once; the model's
answers are the same in all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trainer.evaluation.calibration import brier_scores, log_losses
from trainer.evaluation.metrics import SPECIFICITIES, TOP, is_in_top, softmax
from trainer.evaluation.ranking import Ranked, rank_scores, sweep_thresholds
from trainer.evaluation.rule import Rule

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Values = dict[str, Floats]

LEVEL = 0.95
RESAMPLES, FEWEST = 1000, 200
_SEED = 0
_BLOCK = 1 << 18
"""Weights that are held at once, float64 each: what fits into a CPU's cache."""
_DRAWS = 100_000_000
"""Weights that are drawn in all; beyond it there are fewer resamples, FEWEST at least."""
_RANKED_DRAWS = 20_000_000
"""The same for metrics by order of the scores, over all classes, and for slices: they cost several times as much."""
_RANKED_MOST = 2_000_000
"""Samples times classes beyond which those have no intervals."""
_FEW_GROUPS = 20
UNDEFINED_MOST = 0.1
"""Share of the resamples that may leave a metric undefined, for want of a class."""
_SAME = "every resample gives the same value"
_PROPORTIONS = ("accuracy", "top5_accuracy", "sensitivity", "specificity")


@dataclass(frozen=True)
class Units:
    """What is drawn anew. by: sample or group; of: int64[N], the unit of each sample; number: of units."""

    by: str
    of: Ints
    number: int

    def draw(self, rng: np.random.Generator, resamples: int) -> Floats:
        """Return float64[resamples, N], how often each sample comes when as many units are drawn as there are."""
        drawn = rng.integers(0, self.number, (resamples, self.number)) + np.arange(resamples)[:, None] * self.number
        times = np.bincount(drawn.ravel(), minlength=resamples * self.number).reshape(resamples, -1).astype(np.float64)
        return times if self.by == "sample" else times[:, self.of]


@dataclass(frozen=True)
class Answers:
    """A model's answers. labels, predicted: int64[N]; logits: float32[N, K]."""

    labels: Ints
    predicted: Ints
    logits: npt.NDArray[np.float32]

    @property
    def num_classes(self) -> int:
        return self.logits.shape[1]


def find_units(num_samples: int, groups: pa.Array | None) -> Units:
    """Return groups as units where any two samples share one, samples otherwise; one without a group is its own."""
    own = np.arange(num_samples)
    if groups is None:
        return Units("sample", own, num_samples)
    named = pc.if_else(pc.equal(groups, ""), pa.scalar(None, pa.string()), groups).dictionary_encode()
    codes, number = (
        pc.fill_null(named.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64),
        len(named.dictionary),
    )
    alone = codes < 0
    codes[alone] = number + own[: int(alone.sum())]
    number += int(alone.sum())
    return Units("sample", own, num_samples) if number == num_samples else Units("group", codes, number)


def compute_intervals(
    answers: Answers, classes: list[str], rule: Rule, units: Units, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Return `interval`, how it was done, and `intervals`, [low, high] by name of metric.

    per_class holds those of each class's precision, recall and f1. A metric that the resamples do not bound is
    absent, and interval.notes says why. ECE has none: it grows with noise, and a resample is noisier than its samples.

    Source: Efron and Tibshirani 1993, chapter 13 (percentile); Field and Welsh 2007 (cluster bootstrap).
    """
    size, ranked = len(answers.labels), _rank_classes(answers, rule)
    most = min(resamples, max(FEWEST, _DRAWS // size))
    few = min(most, max(FEWEST, _RANKED_DRAWS // (size * len(ranked))))
    how: dict[str, Any] = {"method": "percentile bootstrap", "level": LEVEL, "by": units.by, "units": units.number}
    how |= {"resamples": most}
    notes: dict[str, str] = {"ece": "resampling would bias it upward"}
    for sentence in describe_few(units):
        notes["groups"] = sentence
    if size * len(ranked) > _RANKED_MOST:
        ranked = {}
        notes |= dict.fromkeys(("auroc", "auprc", *SPECIFICITIES), "too many samples and classes to resample in time")
    elif few < most:
        how["resamples_of_ranks"] = few  # auroc, auprc and sensitivities at a specificity
    values = _resample(answers, rule, units, most, _Ranks(ranked, few))
    by_class = {name.partition("/")[2]: values.pop(name) for name in list(values) if "/" in name}
    intervals: dict[str, Any] = {}
    for name, value in values.items():
        bounds, note = _bound(value)
        if note == _SAME and name in _PROPORTIONS:
            bounds, note = _bound_sure(name, answers, rule, units)
        if bounds:
            intervals[name] = bounds
        if note:
            notes[name] = note
    intervals["per_class"] = {
        name: {key: bounds for key, value in by_class.items() if (bounds := _bound(value[:, number])[0])}
        for number, name in enumerate(classes)
    }
    return {"interval": how | {"notes": notes}, "intervals": intervals}


def wilson(right: int, number: int) -> list[float]:
    """Return the 95 % score interval of a proportion, `right` of `number` independent ones.

    Source: Wilson 1927.

    >>> [round(bound, 3) for bound in wilson(24, 24)]
    [0.862, 1.0]
    """
    z = 1.959964
    share, scale = right / number, 1 + z**2 / number
    centre = (share + z**2 / (2 * number)) / scale
    half = z / scale * float(np.sqrt(share * (1 - share) / number + z**2 / (4 * number**2)))
    return [max(0.0, centre - half), min(1.0, centre + half)]


def bound_accuracy(right: npt.NDArray[np.bool_], units: Units, resamples: int = RESAMPLES) -> list[float] | None:
    """Return the 95 % interval of a mean of `right` bool[N]: Wilson's by samples, bootstrap by groups.

    None: All samples are of one group.
    """
    if units.by == "sample":
        return wilson(int(right.sum()), len(right))
    if units.number < 2:
        return None
    rng = np.random.default_rng(_SEED)
    totals = np.bincount(units.of, minlength=units.number), np.bincount(units.of, right, minlength=units.number)
    shares = []
    for size in cut_blocks(min(resamples, max(FEWEST, _RANKED_DRAWS // units.number)), units.number):
        drawn = rng.integers(0, units.number, (size, units.number))
        shares.append(totals[1][drawn].sum(axis=1) / totals[0][drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(shares), _tails())
    if low == high:
        return wilson(round(float(low) * units.number), units.number)
    return [float(low), float(high)]


@dataclass(frozen=True)
class _Ranks:
    """Classes against the rest by their number, and in how many of the resamples they are looked at."""

    classes: dict[int, Ranked]
    resamples: int


def _rank_classes(answers: Answers, rule: Rule) -> dict[int, Ranked]:
    probabilities = softmax(answers.logits)
    numbers = range(answers.num_classes)
    if answers.num_classes == 2 and rule.positive is not None:
        numbers = range(rule.positive, rule.positive + 1)
    return {number: rank_scores(answers.labels == number, probabilities[:, number]) for number in numbers}


def _resample(answers: Answers, rule: Rule, units: Units, resamples: int, ranks: _Ranks) -> Values:
    """Return each metric's values float64[resamples, ...]; the names of those by class begin with `class/`."""
    rng = np.random.default_rng(_SEED)
    means = _list_means(answers)
    parts: list[Values] = []
    left = ranks.resamples if ranks.classes else 0
    for size in cut_blocks(resamples, max(len(answers.labels), answers.num_classes**2)):
        weights = units.draw(rng, size)
        values = _judge_confusion(_weigh_confusion(answers, weights), rule)
        # Not by BLAS: it adds in another order for another number of threads, which depends on that of ranks.
        values |= {name: np.einsum("bn,n->b", weights, mean) / weights.sum(axis=1) for name, mean in means.items()}
        if left > 0:
            values |= _judge_order(ranks.classes, weights[:left], rule)
        left -= size
        parts.append(values)
    return {name: np.concatenate([part[name] for part in parts if name in part]) for name in parts[0]}


def describe_few(units: Units) -> list[str]:
    """Return what is to be known of intervals of so many groups."""
    if units.by != "group" or units.number >= _FEW_GROUPS:
        return []
    return [f"intervals of {units.number} groups are too narrow; take at least {_FEW_GROUPS}"]


def cut_blocks(resamples: int, width: int) -> Iterator[int]:
    """Yield the resamples of each block, so many that `width` numbers for each stay in a CPU's cache."""
    block = max(1, _BLOCK // width)
    for start in range(0, resamples, block):
        yield min(block, resamples - start)


def _list_means(answers: Answers) -> Values:
    """Return the metrics that are means over samples, as float64[N] each."""
    means = {
        "log_loss": log_losses(answers.labels, answers.logits),
        "brier": brier_scores(answers.labels, softmax(answers.logits)),
    }
    if answers.num_classes > TOP:
        means["top5_accuracy"] = is_in_top(answers.labels, answers.logits).astype(np.float64)
    return means


def _weigh_confusion(answers: Answers, weights: Floats) -> Floats:
    """Return float64[B, K, K] of weights float64[B, N]."""
    number, (rows, _) = answers.num_classes, weights.shape
    cells = answers.labels * number + answers.predicted + np.arange(rows)[:, None] * number**2
    counts = np.bincount(cells.ravel(), weights.ravel(), minlength=rows * number**2)
    return counts.astype(np.float64).reshape(rows, number, number)


def _judge_confusion(confusion: Floats, rule: Rule) -> Values:
    """Return the metrics that a confusion matrix float64[B, K, K] decides, float64[B] each, by class float64[B, K]."""
    right = np.diagonal(confusion, axis1=1, axis2=2)
    true, said, total = confusion.sum(axis=2), confusion.sum(axis=1), confusion.sum(axis=(1, 2))
    present, hits = true > 0, right.sum(axis=1)
    precision, recall = right / np.maximum(said, 1), right / np.maximum(true, 1)
    table = {"precision": precision, "recall": recall, "f1": 2 * right / np.maximum(true + said, 1)}
    values = {"accuracy": hits / total, "balanced_accuracy": np.average(recall, axis=1, weights=present)}
    for name, column in table.items():
        values[f"macro_{name}"] = np.average(column, axis=1, weights=present)
        values[f"weighted_{name}"] = np.average(column, axis=1, weights=true)
        values[f"class/{name}"] = np.where(present, column, np.nan)
    values |= _judge_agreement(hits, true, said, total)
    if rule.positive is not None:
        at, rest = rule.positive, total - true[:, rule.positive]
        values["sensitivity"] = np.where(present[:, at], recall[:, at], np.nan)
        false = said[:, at] - right[:, at]
        values["specificity"] = np.where(rest > 0, 1 - false / np.maximum(rest, 1), np.nan)
    return values


def _judge_agreement(hits: Floats, true: Floats, said: Floats, total: Floats) -> Values:
    """Return mcc and kappa; NaN where all samples are of one class.

    Source: Gorodkin 2004 (the MCC of several classes), Cohen 1960.
    """
    chance = (true * said).sum(axis=1)
    spread = (total**2 - (said**2).sum(axis=1)) * (total**2 - (true**2).sum(axis=1))
    mcc = np.where(spread > 0, (hits * total - chance) / np.sqrt(np.maximum(spread, 1e-300)), 0.0)
    kappa = (hits * total - chance) / np.maximum(total**2 - chance, 1e-300)
    defined = (true > 0).sum(axis=1) > 1
    return {"mcc": np.where(defined, mcc, np.nan), "kappa": np.where(defined, kappa, np.nan)}


def _judge_order(ranked: dict[int, Ranked], weights: Floats, rule: Rule) -> Values:
    """Return auroc and auprc, and sensitivities at a specificity where there is a positive class, float64[B] each."""
    values: Values = {}
    columns: dict[str, list[Floats]] = {"auroc": [], "auprc": []}
    for number, one in ranked.items():
        sweep = sweep_thresholds(one, weights)
        columns["auroc"].append(sweep.auroc())
        columns["auprc"].append(sweep.average_precision())
        if number == rule.positive:
            values |= {name: sweep.sensitivity_at(least) for name, least in SPECIFICITIES.items()}
    return values | {name: np.mean(column, axis=0) for name, column in columns.items()}


def _bound(values: Floats) -> tuple[list[float] | None, str]:
    """Return [low, high] of a metric's values; None and the reason where they give none."""
    undefined = np.isnan(values)
    if undefined.mean() > UNDEFINED_MOST:
        return None, "a class is so rare that many resamples lack it"
    low, high = np.quantile(values[~undefined], _tails())
    return ([float(low), float(high)], "") if low < high else (None, _SAME)


def _bound_sure(name: str, answers: Answers, rule: Rule, units: Units) -> tuple[list[float], str]:
    """Return Wilson's interval of a proportion that is the same in all resamples, and a note that says so."""
    labels, right = answers.labels, answers.predicted == answers.labels
    part = np.ones(len(labels), dtype=bool)
    if name == "top5_accuracy":
        right = is_in_top(labels, answers.logits)
    elif name in ("sensitivity", "specificity"):
        part = (labels == rule.positive) == (name == "sensitivity")
        right = (answers.predicted == rule.positive) == (name == "sensitivity")
    number = len(np.unique(units.of[part]))
    note = f"{_SAME}; it is Wilson's of {number:,} {units.by}s instead"
    return wilson(round(float(right[part].mean()) * number), number), note


def _tails() -> tuple[float, float]:
    return (1 - LEVEL) / 2, (1 + LEVEL) / 2
