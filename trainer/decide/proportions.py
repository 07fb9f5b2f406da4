"""95 % intervals for the results of an operating point."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from trainer.contract.decision.operating_point import Interval

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_DRAWS = 4000


def bound_share(hits: int, count: int) -> Interval:
    """Return the exact interval of a proportion, `hits` of `count` independent pictures.

    For recall at a threshold equal to the score of a positive picture, the lower end is still exact: the share of
    positives above the k-th highest of n scores is distributed as Beta(k, n - k + 1), whose quantile it is.

    Source: Clopper and Pearson 1934.
    """
    bounds = binomtest(hits, count).proportion_ci(0.95, "exact")
    return Interval(value=hits / count, low=float(bounds.low), high=float(bounds.high), count=count)


def bound_precision(flagged: Counts, totals: Counts, weights: Floats, positive: int) -> Interval | None:
    """Return the interval of the share of class `positive` among flagged pictures; None if there are none.

    Args:
        flagged: int64[K], flagged pictures of each class.
        totals: int64[K], pictures of each class, > 0.
        weights: float64[K], > 0, ratio of each class's share at deployment to its share here.
        positive: Number of the positive class.
    """
    if not flagged.any():
        return None
    mass = _draw_rates(flagged, totals) * totals * weights
    return _bound(
        mass[:, positive] / mass.sum(axis=1),
        float(flagged[positive] * weights[positive] / (flagged * weights).sum()),
        int(flagged.sum()),
    )


def bound_rate(hits: Counts, totals: Counts, weights: Floats | None) -> Interval | None:
    """Return the interval of the share of pictures that are hits, over classes; None without pictures.

    Args:
        hits: int64[K], hits of each class.
        totals: int64[K], pictures of each class; 0 for classes that do not count.
        weights: As in `bound_precision`; None: equal shares.
    """
    if not totals.any():
        return None
    if weights is None:
        return bound_share(int(hits.sum()), int(totals.sum()))
    counted = totals > 0
    mass = (totals * weights)[counted] / (totals * weights).sum()
    draws = _draw_rates(hits[counted], totals[counted]) @ mass
    return _bound(draws, float((hits[counted] / totals[counted]) @ mass), int(totals.sum()))


def _draw_rates(hits: Counts, totals: Counts) -> Floats:
    """Return float64[draws, K], plausible rates of each class.

    Source: Beta(k + 1/2, n - k + 1/2), as in the Jeffreys interval (Brown, Cai, DasGupta 2001, Interval
    Estimation for a Binomial Proportion).
    """
    return np.random.default_rng(0).beta(hits + 0.5, totals - hits + 0.5, (_DRAWS, len(totals)))


def _bound(draws: Floats, value: float, count: int) -> Interval:
    low, high = np.quantile(draws, (0.025, 0.975))
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value), count=count)
