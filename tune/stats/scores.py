"""A metric as one number a picture: their mean is the metric, and how they vary over pictures is how it does.

For accuracy and log loss these are each picture's own. Metrics that are no mean over pictures have pseudo-values of the
infinitesimal jackknife: the metric plus N times its change with a little more weight on that picture.
Source: Efron, The Jackknife, the Bootstrap and Other Resampling Plans (1982), 6; those of AUROC are made of DeLong's
placements (DeLong, DeLong & Clarke-Pearson, Biometrics 44 (1988), 837).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from shards.errors import UsageError
from trainer.contract.task import ONE_LABEL
from trainer.evaluate.metrics.log_odds import LogOdds

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]


def score_accuracy(labels: Ints, logits: Logits) -> Floats:
    """Return 1 for each picture whose largest logit is of its class, else 0."""
    return (logits.argmax(axis=1) == labels).astype(np.float64)


def score_log_loss(labels: Ints, logits: Logits) -> Floats:
    """Return the negative logarithm of the probability of each picture's class."""
    return ONE_LABEL.log_losses(labels, logits)


def score_balanced_accuracy(labels: Ints, logits: Logits) -> Floats:
    """Return the pseudo-values of the mean over classes of their recall; classes without a picture do not count."""
    right = score_accuracy(labels, logits)
    counts = np.bincount(labels, minlength=logits.shape[1])
    recalls = np.bincount(labels, right, logits.shape[1]) / np.maximum(counts, 1)
    there = np.count_nonzero(counts)
    value = recalls[counts > 0].mean()
    return value + len(labels) / (counts[labels] * there) * (right - recalls[labels])


def score_macro_f1(labels: Ints, logits: Logits) -> Floats:
    """Return the pseudo-values of the mean over classes of F1; classes without a picture do not count."""
    classes, predicted = logits.shape[1], logits.argmax(axis=1)
    counts = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels[predicted == labels], minlength=classes)
    size = counts + np.bincount(predicted, minlength=classes)  # 2 TP + FP + FN
    there = counts > 0
    value = (2 * hits / np.maximum(size, 1))[there].mean()
    slope = np.where(there, 1 / np.maximum(size, 1) ** 2, 0.0)
    right = predicted == labels
    of_hit = 2 * (size - 2 * hits) * slope
    of_miss = -2 * hits * slope
    changes = np.where(right, of_hit[labels], of_miss[labels] + of_miss[predicted])
    return np.asarray(value + len(labels) / there.sum() * changes, np.float64)


def score_auroc(labels: Ints, logits: Logits) -> Floats:
    """Return the pseudo-values of the area under the ROC curve: of two classes, else the mean of one against the rest.

    Raises:
        UsageError: A class that has no picture, or all of them.
    """
    classes = logits.shape[1]
    counts = np.bincount(labels, minlength=classes)
    if 0 in counts:
        raise UsageError(
            f"auroc needs pictures of every class, and class number {int(counts.argmin())} has none among these; "
            "compare by accuracy or log_loss"
        )
    odds = LogOdds(ONE_LABEL, logits)
    columns: Iterator[tuple[int, Floats]] = iter([(1, odds.column(1))]) if classes == 2 else enumerate(odds.columns())
    parts = [_place(labels == number, column) for number, column in columns]
    return np.mean(parts, axis=0)


def _place(positive: npt.NDArray[np.bool_], scores: Floats) -> Floats:
    """Return the pseudo-values of one class's area: how many of the other side each picture is on the right side of."""
    ranks, values = rankdata(scores), np.empty(len(scores))
    found, others = np.count_nonzero(positive), np.count_nonzero(~positive)
    values[positive] = (ranks[positive] - rankdata(scores[positive])) / others
    values[~positive] = 1 - (ranks[~positive] - rankdata(scores[~positive])) / found
    area = values[positive].mean()
    weights = len(scores) / np.where(positive, found, others)
    return np.asarray(area + weights * (values - area), np.float64)


METRICS: Final[dict[str, Callable[[Ints, Logits], Floats]]] = {
    "accuracy": score_accuracy,
    "log_loss": score_log_loss,
    "balanced_accuracy": score_balanced_accuracy,
    "macro_f1": score_macro_f1,
    "auroc": score_auroc,
}
