"""Metrics for several labels per picture; the table is trainer.contract.metrics.

scikit-learn is imported on use: it takes seconds, and most processes never evaluate.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.contract.metrics import list_metrics
from trainer.evaluate.metrics.log_odds import LogOdds
from trainer.evaluate.metrics.ranking import Areas, measure_areas
from trainer.evaluate.metrics.rule import Scored

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class _Counted(NamedTuple):
    """Counts of each class: float64[K] and int64[K]."""

    precision: Floats
    recall: Floats
    f1: Floats
    support: Ints


class ManyLabelsScored(Scored):
    """labels, predicted: int64[N, K] of 0 and 1. Metrics without a threshold rank by logits, which stay distinct beyond
    37, where probabilities do not."""

    @cached_property
    def counted(self) -> _Counted:
        from sklearn import metrics as sk

        return _Counted(
            *sk.precision_recall_fscore_support(self.labels, self.predicted, average=None, zero_division=0.0)
        )

    @property
    def present(self) -> Bools:
        """bool[K], classes that some sample has, so that recall, f1 and average precision are defined."""
        return self.counted.support > 0

    @property
    def mixed(self) -> Bools:
        """bool[K], classes that some samples have and others lack, so that AUROC is defined."""
        return self.present & (self.counted.support < len(self.labels))

    @cached_property
    def _areas(self) -> list[Areas | None]:
        """Areas of each class; None if no sample has it."""
        columns = zip(self.labels.T == 1, LogOdds(self.rule.task, self.logits).columns(), self.present, strict=True)
        return [measure_areas(scores[truth], scores) if known else None for truth, scores, known in columns]

    @property
    def average_precisions(self) -> list[float | None]:
        return [None if areas is None else areas.average_precision for areas in self._areas]

    @property
    def areas(self) -> list[float | None]:
        """AUROC of each class."""
        return [None if areas is None else areas.auroc for areas in self._areas]

    def tabulate(self) -> dict[str, Any]:
        """Return undefined: classes left out of means; per_class: metrics by class, None if undefined; and
        confusion_per_class: [[true negatives, false positives], [false negatives, true positives]]."""
        from sklearn import metrics as sk

        tables = sk.multilabel_confusion_matrix(self.labels, self.predicted).tolist()
        return {
            "undefined": self._list_undefined(),
            "per_class": {name: self._describe(number) for number, name in enumerate(self.classes)},
            "confusion_per_class": dict(zip(self.classes, tables, strict=True)),
        }

    def _list_undefined(self) -> dict[str, list[str]]:
        defined = {"a class": self.present, "a mixed class": self.mixed}
        return {
            metric.key: [self.classes[number] for number in np.flatnonzero(~defined[metric.needs])]
            for metric in list_metrics(self.rule.task.name)
            if metric.needs in defined and not defined[metric.needs].all()
        }

    def _describe(self, number: int) -> dict[str, float | int | None]:
        return {
            "precision": float(self.counted.precision[number]),
            "recall": float(self.counted.recall[number]),
            "f1": float(self.counted.f1[number]),
            "support": int(self.counted.support[number]),
            "average_precision": self.average_precisions[number],
            "auroc": self.areas[number],
        }


def subset_accuracy(scored: ManyLabelsScored) -> float:
    """Share of samples whose labels are all correct."""
    return float(scored.rule.task.compare(scored.labels, scored.predicted).mean())


def hamming_loss(scored: ManyLabelsScored) -> float:
    """Share of the N * K answers that are wrong."""
    return float((scored.predicted != scored.labels).mean())


def micro_f1(scored: ManyLabelsScored) -> float:
    """F1 over all answers."""
    from sklearn import metrics as sk

    return float(sk.f1_score(scored.labels, scored.predicted, average="micro", zero_division=0.0))


def log_loss(scored: ManyLabelsScored) -> float:
    """Mean binary log loss."""
    return float(scored.rule.task.log_losses(scored.labels, scored.logits).mean())


def macro_f1(scored: ManyLabelsScored) -> float | None:
    """Mean over the classes that some sample has."""
    return float(scored.counted.f1[scored.present].mean()) if scored.present.any() else None


def mean_average_precision(scored: ManyLabelsScored) -> float | None:
    """Mean over the classes that some sample has."""
    return _average(scored.average_precisions)


def auroc(scored: ManyLabelsScored) -> float | None:
    """Mean over the classes that some samples have and others lack."""
    return _average(scored.areas)


def micro_auroc(scored: ManyLabelsScored) -> float | None:
    """AUROC over all answers."""
    scores, there = scored.logits.ravel(), scored.labels.ravel() == 1
    return measure_areas(scores[there], scores).auroc if there.any() else None


def _average(by_class: list[float | None]) -> float | None:
    """Return the mean over the classes with a value."""
    defined = [value for value in by_class if value is not None]
    return float(np.mean(defined)) if defined else None
