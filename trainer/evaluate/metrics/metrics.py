"""Metrics of a classifier, computed once from per-sample rows.

scikit-learn is imported where it is used: it takes seconds, and most processes of a run never evaluate.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.evaluate.metrics.calibration import bin_confidences, brier_scores, calibration_error, log_losses
from trainer.evaluate.metrics.multi_label import compute_multi_label_metrics
from trainer.evaluate.metrics.ranking import rank_scores, sweep_thresholds
from trainer.evaluate.metrics.rule import EachRule, Rule, find_rule

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Notes = dict[str, str]

TOP = 5
SPECIFICITIES = {"sensitivity_at_specificity_90": 0.90, "sensitivity_at_specificity_95": 0.95}


def compute_metrics(
    labels: Ints, logits: npt.NDArray[np.float32], classes: list[str], rule: Rule | EachRule | None = None
) -> dict[str, Any]:
    """Return the metrics of logits float32[N, K] against labels int64[N], without intervals.

    Scalars: samples; accuracy, balanced_accuracy (mean recall), macro_ and weighted_ precision, recall and f1, mcc,
    kappa; top5_accuracy (more than 5 classes); auroc and auprc (two classes: of the positive one; more: mean of
    one-versus-rest); sensitivity, specificity and sensitivity_at_specificity_90 and _95 (where there is a positive
    class, against the rest); log_loss (nats), brier, ece (0..1). Means over classes are over those with samples.
    Tables: per_class; confusion as counts, rows true and columns predicted. A figure that these samples do not define
    is absent, and `notes` says why. Labels int64[N, K] of 0 and 1 are those of samples that have several: see
    `compute_multi_label_metrics`.

    Args:
        rule: How logits become predictions; None: the most probable class, and the second of two classes is positive.
    """
    if labels.ndim == 2:
        assert not isinstance(rule, Rule)
        return compute_multi_label_metrics(labels, logits, classes, rule)
    assert not isinstance(rule, EachRule)
    rule = rule or find_rule(classes)
    probabilities = softmax(logits)
    predicted = rule.predict(logits, probabilities)
    notes: Notes = {}
    per_class = _judge_classes(labels, predicted, probabilities, classes)
    result: dict[str, Any] = {
        "samples": len(labels),
        **_judge_predictions(labels, predicted, per_class, notes),
        **_judge_order(labels, logits, per_class, rule, notes),
        **_judge_positive(labels, predicted, probabilities, classes, rule, notes),
        **_judge_probabilities(labels, logits, probabilities),
    }
    if notes:
        result["notes"] = notes
    result["per_class"] = dict(zip(classes, per_class, strict=True))
    result["confusion"] = count_confusion(labels, predicted, len(classes)).tolist()
    return result


def softmax(logits: npt.NDArray[np.float32]) -> Floats:
    """Return float64[N, K] probabilities."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials: Floats = np.exp(shifted, out=shifted)
    exponentials /= exponentials.sum(axis=1, keepdims=True)
    return exponentials


def select_scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the metrics that are single numbers."""
    return {name: float(value) for name, value in metrics.items() if isinstance(value, (int, float))}


def count_confusion(labels: Ints, predicted: Ints, num_classes: int) -> Ints:
    """Return int64[K, K], rows true and columns predicted."""
    cells = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def _judge_classes(
    labels: Ints, predicted: Ints, probabilities: Floats, classes: list[str]
) -> list[dict[str, float | int]]:
    """Return precision, recall, f1, specificity, support, and where they are defined auroc and auprc of each class."""
    from sklearn import metrics as sk

    numbers = list(range(len(classes)))
    columns = sk.precision_recall_fscore_support(labels, predicted, labels=numbers, zero_division=0.0)
    rows = []
    for number, (precision, recall, f1, support) in enumerate(zip(*columns, strict=True)):
        row = {"precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(support)}
        if 0 < support < len(labels):
            truth, scores = labels == number, probabilities[:, number]
            row["specificity"] = float((predicted[~truth] != number).mean())
            row["auroc"] = float(sk.roc_auc_score(truth, scores))
            row["auprc"] = float(sk.average_precision_score(truth, scores))
        rows.append(row)
    return rows


def _judge_predictions(
    labels: Ints, predicted: Ints, per_class: list[dict[str, float | int]], notes: Notes
) -> dict[str, float]:
    from sklearn import metrics as sk

    support = np.array([row["support"] for row in per_class])
    table = {name: np.array([row[name] for row in per_class]) for name in ("precision", "recall", "f1")}
    result = {"accuracy": float((predicted == labels).mean())}
    result["balanced_accuracy"] = float(table["recall"][support > 0].mean())
    for name, values in table.items():
        result[f"macro_{name}"] = float(values[support > 0].mean())
        result[f"weighted_{name}"] = float(np.average(values, weights=support))
    if (support > 0).sum() > 1:
        result["mcc"] = float(sk.matthews_corrcoef(labels, predicted))
        result["kappa"] = float(sk.cohen_kappa_score(labels, predicted))
    else:
        notes["mcc"] = notes["kappa"] = "all samples are of one class"
    return result


def _judge_order(
    labels: Ints,
    logits: npt.NDArray[np.float32],
    per_class: list[dict[str, float | int]],
    rule: Rule,
    notes: Notes,
) -> dict[str, float]:
    result: dict[str, float] = {}
    if len(per_class) > TOP:
        result["top5_accuracy"] = float(is_in_top(labels, logits).mean())
    missing = sum(row["support"] == 0 for row in per_class)
    for name in ("auroc", "auprc"):
        if missing:
            notes[name] = f"{missing} of {len(per_class)} classes have no samples here"
        elif len(per_class) == 2 and rule.positive is not None:
            result[name] = per_class[rule.positive][name]
        elif len(per_class) > 1:
            result[name] = float(np.mean([row[name] for row in per_class]))
    return result


def is_in_top(labels: Ints, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Return bool[N], whether fewer than 5 classes come before the true one; of equal logits the lower number does."""
    own = logits[np.arange(len(labels)), labels][:, None]
    lower = np.arange(logits.shape[1]) < labels[:, None]
    before = (logits > own) | ((logits == own) & lower)
    in_top: npt.NDArray[np.bool_] = before.sum(axis=1) < TOP
    return in_top


def _judge_positive(
    labels: Ints, predicted: Ints, probabilities: Floats, classes: list[str], rule: Rule, notes: Notes
) -> dict[str, float]:
    if rule.positive is None:
        return {}
    truth, said = labels == rule.positive, predicted == rule.positive
    result = {}
    for name, part, hit in (("sensitivity", truth, said), ("specificity", ~truth, ~said)):
        if part.any():
            result[name] = float(hit[part].mean())
        else:
            which = "is" if name == "sensitivity" else "is not"
            notes[name] = f"no sample here {which} of the positive class, {classes[rule.positive]}"
    if len(result) < 2:
        notes |= dict.fromkeys(SPECIFICITIES, f"needs samples of {classes[rule.positive]} and of others")
        return result
    sweep = sweep_thresholds(rank_scores(truth, probabilities[:, rule.positive]), np.ones((1, len(labels))))
    return result | {name: float(sweep.sensitivity_at(value)[0]) for name, value in SPECIFICITIES.items()}


def _judge_probabilities(labels: Ints, logits: npt.NDArray[np.float32], probabilities: Floats) -> dict[str, float]:
    confidences, bins = bin_confidences(probabilities)
    return {
        "log_loss": float(log_losses(labels, logits).mean()),
        "brier": float(brier_scores(labels, probabilities).mean()),
        "ece": calibration_error(logits.argmax(axis=1) == labels, confidences, bins),
    }
