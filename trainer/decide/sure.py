"""Choose a threshold whose recall also holds on new pictures, with a given confidence."""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from shards.errors import ShardError
from trainer.contract.decision.operating_point import PointRule
from trainer.decide.grouped import bound_low_by_group
from trainer.evaluate.metrics.resampling import Units

Floats = npt.NDArray[np.float64]


def choose_sure_threshold(
    rule: PointRule, scores: Floats, is_positive: npt.NDArray[np.bool_], positive: str, units: Units
) -> float:
    """Return the highest threshold whose recall has a one-sided lower bound, at the rule's confidence, of the rule's
    value.

    For pictures the bound is exact: if a threshold is the k-th highest of n positive scores, its recall on new pictures
    is distributed as Beta(k, n - k + 1). For groups it is a bootstrap bound over whole groups.

    Args:
        rule: A rule with a recall and a confidence.
        scores: float64[N], probabilities of the positive class.
        is_positive: bool[N]; at least one is True.
        positive: Name of the positive class.
        units: The independent units: pictures, or groups.

    Raises:
        ShardError: No threshold reaches it; the message has the number of pictures needed.

    Source: Clopper and Pearson 1934 (the lower end); Wilks 1941 (Determination of Sample Sizes for Setting Tolerance
    Limits).
    """
    assert rule.confidence is not None
    tail = 1 - rule.confidence
    thresholds = np.unique(scores[is_positive])[::-1]
    number = int(is_positive.sum())

    def bound(threshold: float) -> float:
        found = is_positive & (scores >= threshold)
        if units.by == "group":
            return bound_low_by_group(found, is_positive, units, tail)
        hits = int(found.sum())
        return float(beta.ppf(tail, hits, number - hits + 1))

    # The bound increases as the threshold falls.
    place = bisect_left(thresholds, rule.value, key=bound)
    if place < len(thresholds):
        return float(thresholds[place])
    enough = math.ceil(math.log(tail) / math.log(rule.value))
    counted = f"{number:,} pictures of {positive}"
    if units.by == "group":
        counted += f" in {len(np.unique(units.of[is_positive])):,} groups"
    raise ShardError(
        f"{counted} are too few to be {rule.confidence:.4g} sure of a recall of {rule.value:g}: even "
        f"if all of them are found the lower bound is {bound(float(thresholds[-1])):.4f}, and {enough:,} "
        "independent ones are needed; lower the value, or fit on more pictures"
    )
