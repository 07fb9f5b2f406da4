"""Metrics for one label per picture; the table is trainer.contract.metrics."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.evaluate.metrics.blocks import cut_rows
from trainer.evaluate.metrics.calibration import bin_confidences, calibration_error
from trainer.evaluate.metrics.log_odds import LogOdds
from trainer.evaluate.metrics.ranking import Areas, Sweep, measure_areas, rank_scores, sweep_thresholds
from trainer.evaluate.metrics.row_scores import TOP, RowScores, score_rows
from trainer.evaluate.metrics.rule import Scored

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Defined = float | str
"""A value, or why it is undefined for these samples."""

SPECIFICITIES = {"sensitivity_at_specificity_90": 0.90, "sensitivity_at_specificity_95": 0.95}


class Counted(NamedTuple):
    """Samples of each class, int64[K]: correctly predicted, labelled, predicted."""

    right: Ints
    true: Ints
    said: Ints


class OneLabelScored(Scored):
    """labels, predicted: int64[N]."""

    @cached_property
    def rows(self) -> RowScores:
        return score_rows(self.labels, self.logits, self.rule)

    @property
    def predicted(self) -> Ints:
        return self.rows.predicted

    @cached_property
    def counted(self) -> Counted:
        return count_answers(self.labels, self.predicted, len(self.classes))

    @property
    def support(self) -> Ints:
        """int64[K]."""
        return self.counted.true

    def column(self, name: str) -> Floats:
        """Return precision, recall or f1 of every class, float64[K]; 0 if there are no samples."""
        right, true, said = self.counted
        over, under = {"precision": (right, said), "recall": (right, true), "f1": (2 * right, true + said)}[name]
        return np.divide(over, under, out=np.zeros(len(under)), where=under > 0)

    @cached_property
    def log_odds(self) -> LogOdds:
        return LogOdds(self.rule.task, self.logits)

    @cached_property
    def areas(self) -> list[Areas | None]:
        """AUROC and average precision of each class against the rest; None if all samples or none are of the class."""
        order = np.argsort(self.labels, kind="stable")
        own = np.split(order, np.cumsum(self.support)[:-1])
        defined = (self.support > 0) & (self.support < len(self.labels))
        return [
            measure_areas(scores[samples], scores) if known else None
            for scores, samples, known in zip(self.log_odds.columns(), own, defined.tolist(), strict=True)
        ]

    @cached_property
    def of_positive(self) -> Bools:
        """bool[N], whether each sample is of the positive class."""
        return self.labels == self.rule.positive

    @cached_property
    def sweep(self) -> Sweep:
        """The sweep over all thresholds on the log-odds of the positive class."""
        assert self.rule.positive is not None  # callers need a positive class
        ranked = rank_scores(self.of_positive, self.log_odds.column(self.rule.positive))
        return sweep_thresholds(ranked, np.ones((1, len(self.labels))))

    def tabulate(self) -> dict[str, Any]:
        """Return per_class, and confusion as counts, rows true and columns predicted."""
        confusion = count_confusion(self.labels, self.predicted, len(self.classes)).tolist()
        return {"per_class": dict(zip(self.classes, self._list_classes(), strict=True)), "confusion": confusion}

    def _list_classes(self) -> list[dict[str, float | int]]:
        """Return precision, recall, f1, support and, if defined, specificity, auroc and auprc of each class."""
        names = "precision", "recall", "f1"
        columns = zip(*(self.column(name).tolist() for name in names), strict=True)
        rows = [
            dict(zip((*names, "support"), (*figures, support), strict=True))
            for figures, support in zip(columns, self.support.tolist(), strict=True)
        ]
        for row, right, true, said, areas in zip(rows, *self.counted, self.areas, strict=True):
            if areas is not None and areas.auroc is not None:
                rest = len(self.labels) - true
                row["specificity"] = float((rest - (said - right)) / rest)
                row["auroc"], row["auprc"] = areas.auroc, areas.average_precision
        return rows


def count_answers(labels: Ints, predicted: Ints, num_classes: int) -> Counted:
    """Count predictions int64[N] against labels int64[N]."""
    counted = (np.bincount(part, minlength=num_classes) for part in (labels[labels == predicted], labels, predicted))
    return Counted(*counted)


def count_confusion(labels: Ints, predicted: Ints, num_classes: int) -> Ints:
    """Return int64[K, K], rows true and columns predicted."""
    cells = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def accuracy(scored: OneLabelScored) -> float:
    return float((scored.predicted == scored.labels).mean())


def balanced_accuracy(scored: OneLabelScored) -> float:
    """Mean recall of the classes with samples."""
    return macro_recall(scored)


def _macro(scored: OneLabelScored, name: str) -> float:
    """Return the mean over the classes with samples."""
    return float(scored.column(name)[scored.support > 0].mean())


def _weighted(scored: OneLabelScored, name: str) -> float:
    """Return the mean over classes, weighted by samples."""
    return float(np.average(scored.column(name), weights=scored.support))


def macro_precision(scored: OneLabelScored) -> float:
    return _macro(scored, "precision")


def macro_recall(scored: OneLabelScored) -> float:
    return _macro(scored, "recall")


def macro_f1(scored: OneLabelScored) -> float:
    return _macro(scored, "f1")


def weighted_precision(scored: OneLabelScored) -> float:
    return _weighted(scored, "precision")


def weighted_recall(scored: OneLabelScored) -> float:
    return _weighted(scored, "recall")


def weighted_f1(scored: OneLabelScored) -> float:
    return _weighted(scored, "f1")


def _lack_two_classes(scored: OneLabelScored) -> str | None:
    return None if (scored.support > 0).sum() > 1 else "all samples are of one class"


def mcc(scored: OneLabelScored) -> Defined:
    """Source: Gorodkin 2004 (the MCC of several classes)."""
    if lacking := _lack_two_classes(scored):
        return lacking
    right, true, said = (counts.astype(np.float64) for counts in scored.counted)
    total, chance = float(len(scored.labels)), true @ said
    spread = (total**2 - said @ said) * (total**2 - true @ true)
    return float((right.sum() * total - chance) / np.sqrt(spread)) if spread else 0.0


def kappa(scored: OneLabelScored) -> Defined:
    """Source: Cohen 1960."""
    return _lack_two_classes(scored) or 1 - _count_wrong(scored) / _expect_wrong(scored)


def _count_wrong(scored: OneLabelScored) -> int:
    return int((scored.predicted != scored.labels).sum())


def _expect_wrong(scored: OneLabelScored) -> float:
    """Return the number of wrong answers expected by chance.

    Cells are summed in scikit-learn's order, so that kappa equals its result to the last bit; many in blocks.
    """
    _, true, said = scored.counted
    met = (true > 0) | (said > 0)
    true, said, total = true[met], said[met], 0.0
    for rows in cut_rows(len(true), len(true)):
        cells = np.outer(true[rows], said) / len(scored.labels)
        cells[np.arange(len(cells)), np.arange(rows.start, rows.stop)] = 0
        total += float(cells.sum())
    return total


def top5_accuracy(scored: OneLabelScored) -> float | None:
    return float(scored.rows.in_top.mean()) if len(scored.classes) > TOP else None


def _average_ranking(scored: OneLabelScored, name: str) -> Defined | None:
    """Return the value of the positive class of two, else the mean over all classes, each against the rest."""
    number, missing = len(scored.classes), int((scored.support == 0).sum())
    if missing:
        return f"{missing} of {number} classes have no samples here"
    if number == 1:
        return None
    figures = [getattr(areas, name) for areas in scored.areas]
    if number == 2 and scored.rule.positive is not None:
        return float(figures[scored.rule.positive])
    return float(np.mean(figures))


def auroc(scored: OneLabelScored) -> Defined | None:
    return _average_ranking(scored, "auroc")


def auprc(scored: OneLabelScored) -> Defined | None:
    return _average_ranking(scored, "average_precision")


def sensitivity(scored: OneLabelScored) -> Defined:
    truth, said = scored.of_positive, scored.predicted == scored.rule.positive
    return float(said[truth].mean()) if truth.any() else _describe_lack(scored, "is")


def specificity(scored: OneLabelScored) -> Defined:
    truth, said = scored.of_positive, scored.predicted == scored.rule.positive
    return float((~said)[~truth].mean()) if not truth.all() else _describe_lack(scored, "is not")


def _describe_lack(scored: OneLabelScored, which: str) -> str:
    return f"no sample here {which} of the positive class, {_name_positive(scored)}"


def _name_positive(scored: OneLabelScored) -> str:
    assert scored.rule.positive is not None  # the row needs one
    return scored.classes[scored.rule.positive]


def sensitivity_at_specificity_90(scored: OneLabelScored) -> Defined:
    return _find_sensitivity(scored, "sensitivity_at_specificity_90")


def sensitivity_at_specificity_95(scored: OneLabelScored) -> Defined:
    return _find_sensitivity(scored, "sensitivity_at_specificity_95")


def _find_sensitivity(scored: OneLabelScored, name: str) -> Defined:
    if not 0 < scored.of_positive.sum() < len(scored.labels):
        return f"needs samples of {_name_positive(scored)} and of others"
    return float(scored.sweep.sensitivity_at(SPECIFICITIES[name])[0])


def log_loss(scored: OneLabelScored) -> float:
    return float(scored.rows.log_losses.mean())


def brier(scored: OneLabelScored) -> float:
    return float(scored.rows.brier.mean())


def ece(scored: OneLabelScored) -> float:
    right = scored.rows.best == scored.labels
    return calibration_error(right, scored.rows.confidences, bin_confidences(scored.rows.confidences))
