"""Bootstrap 95 % intervals of metrics for several labels per picture."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.contract.task import MANY_LABELS
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

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Logits = npt.NDArray[np.float32]


def compute_multi_label_intervals(
    labels: Ints, logits: Logits, predicted: Ints, classes: list[str], units: Units, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Like `compute_intervals`, for logits float32[N, K] against labels and predictions int64[N, K].

    A class missing from a resample is left out of its means, as for the samples.
    """
    rankings = len(classes) + 1  # one per class, and one over all answers
    draws = plan_draws(units, rankings, resamples)
    values = resample_multi_label(labels, logits, predicted, draws)
    how = draws.describe()
    how["notes"] |= list_unbounded(MANY_LABELS)
    if not draws.ranked:
        how["notes"] |= dict.fromkeys(("map", "auroc", "micro_auroc"), TOO_MANY)
    right = (labels == predicted).all(axis=1)

    def bound_sure(name: str) -> tuple[list[float], str] | None:
        return bound_same(right, units, np.ones(len(right), np.bool_)) if name == "subset_accuracy" else None

    intervals, notes = bound_values(values, classes, bound_sure)
    how["notes"] |= notes
    return {"interval": how, "intervals": intervals}


def resample_multi_label(labels: Ints, logits: Logits, predicted: Ints, draws: Draws) -> Values:
    """Return each metric's values float64[resamples, ...]; NaN if a resample does not define it."""
    wrong = labels != predicted
    means = {
        "subset_accuracy": (~wrong.any(axis=1)).astype(np.float64),
        "hamming_loss": wrong.mean(axis=1),
        "log_loss": MANY_LABELS.log_losses(labels, logits).mean(axis=1),
    }
    flags = [part.astype(np.float64) for part in (labels * predicted, labels, predicted)]

    def judge(weights: Floats) -> Values:
        # Sums of integers are exact in any order of addition by BLAS.
        hits, true, said = (weights @ part for part in flags)
        return average(means, weights) | _judge_counts(hits, true, said)

    # For all answers: the sample of each answer, whose weight it has.
    together = rank_scores(labels.ravel() == 1, logits.ravel().astype(np.float64))
    together = Ranked(together.order // labels.shape[1], together.truth, together.ends)
    ranked = [rank_scores(labels[:, k] == 1, logits[:, k].astype(np.float64)) for k in range(labels.shape[1])]
    return resample(draws, labels.size, judge, partial(_judge_order, ranked, together))


def _judge_counts(hits: Floats, true: Floats, said: Floats) -> Values:
    """Return the metrics from counts float64[B, K] per class: true positives, labels, predictions."""
    present = true > 0
    f1 = 2 * hits / np.maximum(true + said, 1)
    table = {"precision": hits / np.maximum(said, 1), "recall": hits / np.maximum(true, 1), "f1": f1}
    values = {BY_CLASS + name: np.where(present, column, np.nan) for name, column in table.items()}
    values["micro_f1"] = 2 * hits.sum(axis=1) / np.maximum((true + said).sum(axis=1), 1)
    return values | {"macro_f1": _mean(values[BY_CLASS + "f1"])}


def _judge_order(ranked: list[Ranked], together: Ranked, weights: Floats) -> Values:
    """Return map, auroc and micro_auroc, float64[B] each, and by class float64[B, K]."""
    sweeps = [sweep_thresholds(one, weights) for one in ranked]
    areas = np.stack([sweep.auroc() for sweep in sweeps], axis=1)
    precisions = np.stack([sweep.average_precision() for sweep in sweeps], axis=1)
    return {
        "map": _mean(precisions),
        "auroc": _mean(areas),
        "micro_auroc": sweep_thresholds(together, weights).auroc(),
        BY_CLASS + "average_precision": precisions,
        BY_CLASS + "auroc": areas,
    }


def _mean(by_class: Floats) -> Floats:
    """Return float64[B], the mean of float64[B, K] over classes with a value; NaN if there are none."""
    defined = ~np.isnan(by_class)
    total = np.where(defined, by_class, 0.0).sum(axis=1)
    return np.divide(total, defined.sum(axis=1), out=np.full(len(total), np.nan), where=defined.any(axis=1))
