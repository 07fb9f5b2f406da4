"""95 % intervals for grouped pictures: whole groups (patients, modules) are resampled, not pictures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from trainer.contract.decision.operating_point import Interval
from trainer.decide.proportions import bound_share
from trainer.evaluate.metrics.resampling import FEWEST, RESAMPLES, UNDEFINED_MOST, Units, cut_blocks

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_DRAWS = 100_000_000


def bound_by_group(part: Mask, whole: Mask, labels: Ints, weights: Floats | None, units: Units) -> Interval | None:
    """Return the interval of the share of `part` in `whole`; None without pictures.

    If the resamples do not bound it (all give the same value, or many lack a class), it is the exact interval for as
    many independent pictures as there are groups with pictures of `whole`, which is wide.

    Args:
        part: bool[N], pictures of `whole` that are hits.
        whole: bool[N], pictures that count.
        labels: int64[N].
        weights: float64[K], > 0, ratio of each class's share at deployment to its share here; None: equal.
        units: The units of resampling.

    Source: Field and Welsh 2007 (cluster bootstrap, percentile).
    """
    if not whole.any():
        return None
    each = np.ones(len(labels)) if weights is None else weights[labels]
    value, count = float(each[part].sum() / each[whole].sum()), int(whole.sum())
    drawn = _draw_shares(part, whole, labels, weights, units)
    defined = drawn[~np.isnan(drawn)]
    if len(defined) >= (1 - UNDEFINED_MOST) * len(drawn):
        low, high = (float(bound) for bound in np.quantile(defined, (0.025, 0.975)))
        if low < high:
            return Interval(value=value, low=min(low, value), high=max(high, value), count=count)
    groups = len(np.unique(units.of[whole]))
    exact = bound_share(round(value * groups), groups)
    return Interval(value=value, low=min(exact.low, value), high=max(exact.high, value), count=count)


def bound_low_by_group(part: Mask, whole: Mask, units: Units, tail: float) -> float:
    """Return the lower bound of the share of `part` in `whole`, which is below it only with probability `tail`.

    It is the bootstrap bound over whole groups, but at most the exact bound for as many hits as groups: if nearly every
    picture is a hit, resamples hardly differ, and only groups are independent. Masks as in `bound_by_group`.
    """
    numbers, of = np.unique(units.of[whole], return_inverse=True)
    most = float(beta.ppf(tail, len(numbers), 1))
    alone, everything = Units("group", of, len(numbers)), np.ones(len(of), np.bool_)
    drawn = _draw_shares(part[whole], everything, np.zeros(len(of), np.int64), None, alone)
    return min(most, float(np.quantile(drawn, tail)))


def _draw_shares(part: Mask, whole: Mask, labels: Ints, weights: Floats | None, units: Units) -> Floats:
    """Return float64[resamples], the share in each; NaN if it lacks a class or all pictures of `whole`."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    there = labels[order][starts]
    mass = np.bincount(labels)[there] * (1.0 if weights is None else weights[there])
    rng, shares = np.random.default_rng(0), []
    for size in cut_blocks(min(RESAMPLES, max(FEWEST, _DRAWS // len(labels))), len(labels)):
        times = units.draw(rng, size)[:, order]
        hits, counted, totals = (
            np.add.reduceat(times * mask[order], starts, axis=1) for mask in (part, whole, np.ones(len(labels)))
        )
        with np.errstate(divide="ignore", invalid="ignore"):  # undefined values are NaN
            if weights is not None:  # each class keeps its share at deployment, however often it was drawn
                hits, counted = hits / totals * mass, counted / totals * mass
            shares.append(hits.sum(axis=1) / counted.sum(axis=1))
    return np.concatenate(shares)
