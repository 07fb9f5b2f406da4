"""Fit and evaluate an operating point."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainer.contract.decision.operating_point import (
    Interval,
    OperatingPoint,
    PointRule,
    choose_threshold,
    list_candidates,
)
from trainer.decide.grouped import bound_by_group
from trainer.decide.proportions import bound_precision, bound_rate
from trainer.decide.sure import choose_sure_threshold
from trainer.evaluate.metrics.resampling import Units

Floats = npt.NDArray[np.float64]


def fit_point(
    rule: PointRule,
    classes: list[str],
    positive: int,
    probabilities: Floats,
    labels: npt.NDArray[np.int64],
    ratios: Floats | None,
    units: Units,
) -> OperatingPoint:
    """Return the operating point for a rule.

    Args:
        rule: The rule.
        classes: K names.
        positive: Number of the class of interest; there are pictures of it and of others.
        probabilities: float64[N, K], calibrated.
        labels: int64[N].
        ratios: float64[K], share of each class at deployment divided by its share here; None: equal shares.
        units: The units that intervals count: pictures, or groups.

    Raises:
        ShardError: No threshold satisfies the rule.
    """
    scores = probabilities[:, positive]
    weights = np.ones(len(labels)) if ratios is None else ratios[labels]
    if rule.confidence is not None:
        threshold = choose_sure_threshold(rule, scores, labels == positive, classes[positive], units)
    else:
        threshold = choose_threshold(rule, list_candidates(scores, labels == positive, weights), classes[positive])
    recall, precision, specificity = measure_point(scores >= threshold, labels, positive, len(classes), ratios, units)
    assert recall is not None
    assert specificity is not None
    return OperatingPoint(
        rule=rule.text,
        positive=classes[positive],
        threshold=threshold,
        recall=recall,
        precision=precision,
        specificity=specificity,
        bayes_threshold=rule.bayes_threshold,
    )


def measure_point(
    flagged: npt.NDArray[np.bool_],
    labels: npt.NDArray[np.int64],
    positive: int,
    num_classes: int,
    ratios: Floats | None,
    units: Units,
) -> tuple[Interval | None, Interval | None, Interval | None]:
    """Return recall, precision and specificity of decisions bool[N]; None if there are no pictures.

    Args:
        flagged: bool[N].
        labels: int64[N].
        positive: Number of the class of interest.
        num_classes: K.
        ratios, units: See `fit_point`.
    """
    if units.by == "group":
        true = labels == positive
        return (
            bound_by_group(flagged & true, true, labels, None, units),
            bound_by_group(flagged & true, flagged, labels, ratios, units),
            bound_by_group(~flagged & ~true, ~true, labels, ratios, units),
        )
    totals, alarms = (np.bincount(part, minlength=num_classes) for part in (labels, labels[flagged]))
    wanted = np.arange(num_classes) == positive
    recall = bound_rate(alarms * wanted, totals * wanted, None)
    specificity = bound_rate((totals - alarms) * ~wanted, totals * ~wanted, ratios)
    if ratios is not None:
        return recall, bound_precision(alarms, totals, ratios, positive), specificity
    return recall, bound_rate(alarms * wanted, alarms, None), specificity
