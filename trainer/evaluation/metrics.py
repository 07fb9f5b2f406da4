"""Metrics of a classifier, computed once from per-sample rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp
from sklearn import metrics as sk

from trainer.evaluation.multi_label import compute_multi_label_metrics

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def compute_metrics(labels: Ints, logits: npt.NDArray[np.float32], classes: list[str]) -> dict[str, Any]:
    """Return the metrics of logits float32[N, K] against labels int64[N].

    Scalars: samples, accuracy, balanced_accuracy, macro_f1, log_loss (nats) and auroc (binary: of class 1; more
    classes: macro one-versus-rest; absent where a class has no samples). Tables: per_class with precision,
    recall, f1 and support; confusion as counts, rows true and columns predicted.

    Labels int64[N, K] of 0 and 1 are those of samples that have several: see `compute_multi_label_metrics`.
    """
    if labels.ndim == 2:
        return compute_multi_label_metrics(labels, logits, classes)
    probabilities = softmax(logits)
    own = logits[np.arange(len(labels)), labels].astype(np.float64)
    predicted = logits.argmax(axis=1)
    names = list(range(len(classes)))
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        labels, predicted, labels=names, zero_division=0.0
    )
    present = support > 0
    result: dict[str, Any] = {
        "samples": len(labels),
        "accuracy": float((predicted == labels).mean()),
        "balanced_accuracy": float(recall[present].mean()),
        "macro_f1": float(f1[present].mean()),
        "log_loss": float((logsumexp(logits.astype(np.float64), axis=1) - own).mean()),
    }
    if present.all():
        scores = probabilities[:, 1] if len(classes) == 2 else probabilities
        result["auroc"] = float(sk.roc_auc_score(labels, scores, multi_class="ovr"))
    result["per_class"] = {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
        for name, p, r, f, s in zip(classes, precision, recall, f1, support, strict=True)
    }
    result["confusion"] = sk.confusion_matrix(labels, predicted, labels=names).tolist()
    return result


def softmax(logits: npt.NDArray[np.float32]) -> Floats:
    """Return float64[N, K] probabilities."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    probabilities: Floats = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def select_scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the metrics that are single numbers."""
    return {name: float(value) for name, value in metrics.items() if isinstance(value, (int, float))}
