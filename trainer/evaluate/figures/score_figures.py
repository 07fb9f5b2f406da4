"""Figures of probabilities: ROC, precision-recall, reliability, and metrics by threshold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.evaluate.figures.figures import new_figure, save_figure, shorten_name
from trainer.evaluate.figures.fonts import Lettering
from trainer.evaluate.metrics.calibration import BINS, bin_confidences, calibration_error
from trainer.evaluate.metrics.log_odds import LogOdds
from trainer.evaluate.metrics.rule import Rule

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Logits = npt.NDArray[np.float32]

_NAMED = 10
"""Maximum number of curves with own colours; beyond it, only the worst are named, with the mean of all."""
_WORST = 3
_POINTS = 400
"""Maximum number of points of a curve."""
_GRID = np.linspace(0, 1, 201)
_INK, _SOFT = "#1f2933", "#b8c4ce"


def draw_scores(path: Path, labels: Ints, logits: Logits, lettering: Lettering, rule: Rule) -> None:
    """Draw ROC and precision-recall of the positive class of two, or of each class against the rest, by their log-odds.

    labels: In the form of the rule's task.
    """
    about = name_positive(lettering.names, rule) if logits.shape[1] == 2 else ""
    with lettering.applied():
        figure = new_figure(10, 4.8)
        roc, pr = figure.subplots(1, 2)
        _draw_curves(roc, list(_trace(labels, logits, rule, _trace_roc)), lettering.names, "AUROC")
        _draw_curves(pr, list(_trace(labels, logits, rule, _trace_pr)), lettering.names, "AP")
        roc.plot([0, 1], [0, 1], color="grey", linestyle=":", zorder=1)
        roc.set(xlabel="false positive rate", ylabel="true positive rate", title=f"ROC{about}")
        pr.set(xlabel="recall", ylabel="precision", title=f"precision and recall{about}", ylim=(0, 1.02))
        for axes in (roc, pr):
            axes.grid(alpha=0.3)
            if axes.get_legend_handles_labels()[1]:
                axes.legend(loc="lower right" if axes is roc else "lower left", fontsize=8)
        save_figure(figure, path)


def name_positive(names: list[str], rule: Rule) -> str:
    """Return the title's text about the positive class; "" if there is none.

    >>> from trainer.contract.task import ONE_LABEL
    >>> name_positive(["DEFECTIVE", "NORMAL"], Rule(ONE_LABEL, 0))
    ', positive: DEFECTIVE'
    """
    return "" if rule.positive is None else f", positive: {shorten_name(names[rule.positive])}"


Curve = tuple[int, Floats, Floats, float]
"""Class, x, y, area."""


def _trace(labels: Ints, logits: Logits, rule: Rule, trace: Any) -> Iterator[Curve]:
    truths, odds = rule.task.flag(labels, logits.shape[1]), LogOdds(rule.task, logits)
    for number in _list_classes(logits.shape[1], rule):
        truth = truths[:, number]
        if 0 < truth.sum() < len(truth):
            x, y, area = trace(truth, odds.column(number))
            chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), _POINTS)).astype(int))
            yield number, x[chosen], y[chosen], area


def _trace_roc(truth: Bools, scores: Floats) -> tuple[Floats, Floats, float]:
    from sklearn import metrics as sk

    false, true, _ = sk.roc_curve(truth, scores)
    return false, true, float(sk.auc(false, true))


def _trace_pr(truth: Bools, scores: Floats) -> tuple[Floats, Floats, float]:
    from sklearn import metrics as sk

    precision, recall, _ = sk.precision_recall_curve(truth, scores)
    return recall[::-1], precision[::-1], float(sk.average_precision_score(truth, scores))


def _draw_curves(axes: Any, curves: list[Curve], names: list[str], area_name: str) -> None:
    if len(curves) <= _NAMED:
        for number, x, y, area in curves:
            axes.plot(x, y, label=f"{shorten_name(names[number])}  {area_name} {area:.3f}")
        return
    for _, x, y, _ in curves:
        axes.plot(x, y, color=_SOFT, linewidth=0.6)
    for number, x, y, area in sorted(curves, key=lambda curve: curve[3])[:_WORST]:
        axes.plot(x, y, linewidth=1.2, label=f"{shorten_name(names[number])}  {area_name} {area:.3f}")
    mean = np.mean([np.interp(_GRID, x, y) for _, x, y, _ in curves], axis=0)
    label = f"mean of {len(curves)} classes  {area_name} {np.mean([curve[3] for curve in curves]):.3f}"
    axes.plot(_GRID, mean, color=_INK, linewidth=2, label=label)


def draw_reliability(path: Path, labels: Ints, probabilities: Floats) -> None:
    """Draw accuracy by confidence of the most probable class in 15 bins, and the number of samples in each bin."""
    confidences: Floats = probabilities.max(axis=1)
    bins = bin_confidences(confidences)
    right = probabilities.argmax(axis=1) == labels
    counts = np.bincount(bins, minlength=BINS)
    shown = counts > 0
    accuracy = np.bincount(bins, right, minlength=BINS)[shown] / counts[shown]
    mean = np.bincount(bins, confidences, minlength=BINS)[shown] / counts[shown]
    places = (np.arange(BINS) + 0.5) / BINS
    figure = new_figure(5.2, 5.6)
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.bar(places[shown], accuracy, width=0.94 / BINS, color="#7fb0d6", label="accuracy")
    top.plot(mean, accuracy, color=_INK, marker="o", markersize=3, linewidth=1, label="at the mean confidence")
    top.plot([0, 1], [0, 1], color="grey", linestyle=":", label="perfect")
    error = calibration_error(right, confidences, bins)
    top.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(0, 1), title=f"reliability: ECE {error:.3f}")
    top.legend(loc="upper left", fontsize=8)
    below.bar(places, counts, width=0.94 / BINS, color=_SOFT)
    below.set(xlabel="confidence of the most probable class", ylabel="samples")
    for axes in (top, below):
        axes.grid(alpha=0.3)
    save_figure(figure, path)


def draw_thresholds(path: Path, labels: Ints, probabilities: Floats, lettering: Lettering, rule: Rule) -> None:
    """Draw precision, recall, F1 and specificity against the threshold on the probability of the positive class.

    Without a positive class, draw the mean over classes with samples, each against the rest.
    """
    chosen = [rule.positive] if rule.positive is not None else range(probabilities.shape[1])
    tables = [sweep_grid(labels == number, probabilities[:, number]) for number in chosen if (labels == number).any()]
    title, scale = f"mean of {len(tables)} classes, each against the rest", "threshold"
    if rule.positive is not None:
        name = shorten_name(lettering.names[rule.positive])
        title, scale = f"positive: {name}", f"threshold on the probability of {name}"
    with lettering.applied():
        figure = new_figure(6.4, 4.4)
        axes = figure.add_subplot()
        for name in tables[0] if tables else ():
            columns = np.array([table[name] for table in tables])
            known = ~np.isnan(columns)
            mean = np.where(known, columns, 0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)
            axes.plot(_GRID, mean, label=name)
        if rule.threshold is not None:
            axes.axvline(rule.threshold, color=_INK, linestyle="--", linewidth=1, label=f"chosen: {rule.threshold:g}")
        axes.set(xlabel=scale, ylim=(0, 1.02), xlim=(0, 1), title=title)
        axes.grid(alpha=0.3)
        if tables:
            axes.legend(fontsize=8)
        save_figure(figure, path)


def sweep_grid(truth: Bools, scores: Floats) -> dict[str, Floats]:
    """Return precision, recall, F1 and specificity, float64[201] each, at thresholds 0, 0.005, ... 1.

    A sample is predicted if its score reaches the threshold; precision without such samples is NaN.
    """
    positives, negatives = np.sort(scores[truth]), np.sort(scores[~truth])
    true = len(positives) - np.searchsorted(positives, _GRID)
    false = len(negatives) - np.searchsorted(negatives, _GRID)
    said = true + false
    return {
        "precision": np.divide(true, said, out=np.full(len(_GRID), np.nan), where=said > 0),
        "recall": _share(true, len(positives)),
        "F1": 2 * true / np.maximum(said + len(positives), 1),
        "specificity": 1 - _share(false, len(negatives)),
    }


def _share(counts: Ints, total: int) -> Floats:
    return counts / total if total else np.full(len(counts), np.nan)


def _list_classes(number: int, rule: Rule) -> list[int]:
    return [rule.positive] if number == 2 and rule.positive is not None else list(range(number))
