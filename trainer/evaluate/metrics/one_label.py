"""Metrics of pictures that are of one class each; the table is trainer.contract.metrics.

scikit-learn is imported where it is used: it takes seconds, and most processes of a run never evaluate.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.evaluate.metrics.calibration import bin_confidences, brier_scores, calibration_error
from trainer.evaluate.metrics.ranking import Sweep, rank_scores, sweep_thresholds
from trainer.evaluate.metrics.scored import Scored

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Defined = float | str
"""A value, or why these samples do not define it."""

TOP = 5
SPECIFICITIES = {"sensitivity_at_specificity_90": 0.90, "sensitivity_at_specificity_95": 0.95}


class OneLabelScored(Scored):
    """labels, predicted: int64[N]."""

    @cached_property
    def per_class(self) -> list[dict[str, float | int]]:
        """Of each class precision, recall, f1, support, and where they are defined specificity, auroc and auprc."""
        from sklearn import metrics as sk

        labels, predicted = self.labels, self.predicted
        numbers = list(range(len(self.classes)))
        columns = sk.precision_recall_fscore_support(labels, predicted, labels=numbers, zero_division=0.0)
        rows = []
        for number, (precision, recall, f1, support) in enumerate(zip(*columns, strict=True)):
            row = {"precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(support)}
            if 0 < support < len(labels):
                truth, scores = labels == number, self.probabilities[:, number]
                row["specificity"] = float((predicted[~truth] != number).mean())
                row["auroc"] = float(sk.roc_auc_score(truth, scores))
                row["auprc"] = float(sk.average_precision_score(truth, scores))
            rows.append(row)
        return rows

    @property
    def support(self) -> Ints:
        return self.column("support")

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return a figure of every class, [K]."""
        return np.array([row[name] for row in self.per_class])

    @cached_property
    def of_positive(self) -> npt.NDArray[np.bool_]:
        """bool[N], whether each sample is of the class that is looked for."""
        return self.labels == self.rule.positive

    @cached_property
    def sweep(self) -> Sweep:
        """Every threshold on the probability of that class."""
        ranked = rank_scores(self.of_positive, self.probabilities[:, self.rule.positive])
        return sweep_thresholds(ranked, np.ones((1, len(self.labels))))

    def tabulate(self) -> dict[str, Any]:
        """Return per_class, and confusion as counts, rows true and columns predicted."""
        confusion = count_confusion(self.labels, self.predicted, len(self.classes)).tolist()
        return {"per_class": dict(zip(self.classes, self.per_class, strict=True)), "confusion": confusion}


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
    """Return the mean over the classes by their samples."""
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
    from sklearn import metrics as sk

    return _lack_two_classes(scored) or float(sk.matthews_corrcoef(scored.labels, scored.predicted))


def kappa(scored: OneLabelScored) -> Defined:
    from sklearn import metrics as sk

    return _lack_two_classes(scored) or float(sk.cohen_kappa_score(scored.labels, scored.predicted))


def top5_accuracy(scored: OneLabelScored) -> float | None:
    return float(is_in_top(scored.labels, scored.logits).mean()) if len(scored.classes) > TOP else None


def is_in_top(labels: Ints, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Return bool[N], whether fewer than 5 classes come before the true one; of equal logits the lower number does."""
    own = logits[np.arange(len(labels)), labels][:, None]
    lower = np.arange(logits.shape[1]) < labels[:, None]
    before = (logits > own) | ((logits == own) & lower)
    in_top: npt.NDArray[np.bool_] = before.sum(axis=1) < TOP
    return in_top


def _average_ranking(scored: OneLabelScored, name: str) -> Defined | None:
    """Return the figure of the positive class of two, else the mean of all classes, each against the rest."""
    number, missing = len(scored.classes), int((scored.support == 0).sum())
    if missing:
        return f"{missing} of {number} classes have no samples here"
    if number == 2 and scored.rule.positive is not None:
        return scored.per_class[scored.rule.positive][name]
    return float(np.mean(scored.column(name))) if number > 1 else None


def auroc(scored: OneLabelScored) -> Defined | None:
    return _average_ranking(scored, "auroc")


def auprc(scored: OneLabelScored) -> Defined | None:
    return _average_ranking(scored, "auprc")


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
    return float(scored.rule.task.log_losses(scored.labels, scored.logits).mean())


def brier(scored: OneLabelScored) -> float:
    return float(brier_scores(scored.labels, scored.probabilities).mean())


def ece(scored: OneLabelScored) -> float:
    confidences, bins = bin_confidences(scored.probabilities)
    return calibration_error(scored.logits.argmax(axis=1) == scored.labels, confidences, bins)
