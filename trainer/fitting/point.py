"""An operating point and what it gives."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainer.contract.operating_point import (
    Interval,
    OperatingPoint,
    PointRule,
    choose_threshold,
    list_candidates,
)
from trainer.fitting.proportions import bound_precision, bound_share, bound_specificity

Floats = npt.NDArray[np.float64]


def fit_point(
    rule: PointRule,
    classes: list[str],
    positive: int,
    probabilities: Floats,
    labels: npt.NDArray[np.int64],
    ratios: Floats | None,
) -> OperatingPoint:
    """Return the operating point that `rule` asks for.

    Args:
        rule: What is asked.
        classes: K names.
        positive: Number of the class that matters; there are pictures of it and of others.
        probabilities: float64[N, K], calibrated.
        labels: int64[N].
        ratios: float64[K], share of each class where the model is used over its share here; None: the same shares.

    Raises:
        ShardError: No threshold reaches it.
    """
    scores = probabilities[:, positive]
    weights = np.ones(len(labels)) if ratios is None else ratios[labels]
    threshold = choose_threshold(rule, list_candidates(scores, labels == positive, weights), classes[positive])
    totals = np.bincount(labels, minlength=len(classes))
    flagged = np.bincount(labels[scores >= threshold], minlength=len(classes))
    precision, specificity = _bound_others(flagged, totals, ratios, positive)
    return OperatingPoint(
        rule=rule.text,
        positive=classes[positive],
        threshold=threshold,
        recall=bound_share(int(flagged[positive]), int(totals[positive])),
        precision=precision,
        specificity=specificity,
        bayes_threshold=rule.bayes_threshold,
    )


def _bound_others(
    flagged: npt.NDArray[np.int64], totals: npt.NDArray[np.int64], ratios: Floats | None, positive: int
) -> tuple[Interval | None, Interval]:
    if ratios is not None:
        return (
            bound_precision(flagged, totals, ratios, positive),
            bound_specificity(flagged, totals, ratios, positive),
        )
    alarms, others = int(flagged.sum()), int(totals.sum() - totals[positive])
    precision = bound_share(int(flagged[positive]), alarms) if alarms else None
    return precision, bound_share(others - alarms + int(flagged[positive]), others)
