"""Metrics of pictures of any number of labels, computed once from per-sample rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.evaluate.metrics.rule import EachRule, find_each_rule

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def compute_multi_label_metrics(
    labels: Ints, logits: npt.NDArray[np.float32], classes: list[str], rule: EachRule | None = None
) -> dict[str, Any]:
    """Return the metrics of logits float32[N, K] against labels int64[N, K], 1 for each class that is there.

    Scalars: samples; subset_accuracy, the share of samples whose labels are all right; hamming_loss, that of the N * K
    answers which are wrong; micro_f1, of all answers together; log_loss, the mean binary one (nats). Means over the
    classes where they are defined: macro_f1 and map, the average precision, over classes that some sample has; auroc
    over those that some have and some have not. micro_auroc is of all answers together. What is defined nowhere is
    absent, and `undefined` lists the classes that a mean leaves out.

    Tables: per_class with precision, recall, f1, support, average_precision and auroc (None where undefined);
    confusion_per_class as [[true negatives, false positives], [false negatives, true positives]].

    Args:
        rule: How probabilities become predictions; None: from 0.5 on.
    """
    from sklearn import metrics as sk  # late: it takes seconds, and most processes of a run never evaluate

    predicted = (rule or find_each_rule(classes)).predict(logits, sigmoid(logits))
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        labels, predicted, average=None, zero_division=0.0
    )
    present, mixed = support > 0, (support > 0) & (support < len(labels))
    # Logits rank as probabilities do, and those beyond 37 do not become equal.
    precisions = _score(sk.average_precision_score, labels, logits, present)
    areas = _score(sk.roc_auc_score, labels, logits, mixed)
    result: dict[str, Any] = {
        "samples": len(labels),
        "subset_accuracy": float((predicted == labels).all(axis=1).mean()),
        "hamming_loss": float((predicted != labels).mean()),
        "micro_f1": float(sk.f1_score(labels, predicted, average="micro", zero_division=0.0)),
        "log_loss": float(compute_log_losses(labels, logits).mean()),
    }
    if present.any():
        result["macro_f1"] = float(f1[present].mean())
        result["map"] = float(np.mean([precisions[k] for k in np.flatnonzero(present)]))
    if mixed.any():
        result["auroc"] = float(np.mean([areas[k] for k in np.flatnonzero(mixed)]))
    if 0 < labels.sum() < labels.size:
        result["micro_auroc"] = float(sk.roc_auc_score(labels.ravel(), logits.ravel()))
    result["undefined"] = {
        name: [classes[k] for k in np.flatnonzero(~defined)]
        for name, defined in (("macro_f1", present), ("map", present), ("auroc", mixed))
        if not defined.all()
    }
    result["per_class"] = {
        name: {
            "precision": float(precision[k]),
            "recall": float(recall[k]),
            "f1": float(f1[k]),
            "support": int(support[k]),
            "average_precision": precisions[k],
            "auroc": areas[k],
        }
        for k, name in enumerate(classes)
    }
    tables = sk.multilabel_confusion_matrix(labels, predicted).tolist()
    result["confusion_per_class"] = dict(zip(classes, tables, strict=True))
    return result


def _score(metric: Any, labels: Ints, logits: npt.NDArray[np.float32], defined: Bools) -> list[float | None]:
    """Return the metric of each class, None where it is not defined."""
    return [float(metric(labels[:, k], logits[:, k])) if known else None for k, known in enumerate(defined.tolist())]


def sigmoid(logits: npt.NDArray[np.float32]) -> Floats:
    """Return float64[N, K], the probability of each class."""
    from scipy.special import expit

    probabilities: Floats = expit(logits.astype(np.float64))
    return probabilities


def compute_log_losses(labels: Ints, logits: npt.NDArray[np.float32]) -> Floats:
    """Return float64[N, K], the binary cross-entropy of each answer, nats."""
    wide = logits.astype(np.float64)
    losses: Floats = np.logaddexp(0.0, wide) - labels * wide
    return losses
