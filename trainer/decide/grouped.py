"""95 % intervals where pictures belong together: whole groups (patients, modules) are drawn anew, not pictures."""

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
    """Return the interval of the share that `part` is of `whole`; None where there are no pictures.

    Where the resamples do not bound it (all give the same value, or many lack a class), it is the exact interval of as
    many proportions as groups have pictures of `whole`, which is wide.

    Args:
        part: bool[N], pictures of `whole` that are hits.
        whole: bool[N], pictures that count.
        labels: int64[N].
        weights: float64[K], > 0, by how much each class is more frequent where the model is used; None: as frequent.
        units: What is drawn anew.

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
    """Return below what the share that `part` is of `whole` lies with probability `tail` alone.

    By the bootstrap of whole groups, but no higher than the exact bound of as many hits as there are groups: where
    nearly every picture is a hit resamples hardly differ, and it is groups that are independent. Masks as of
    `bound_by_group`.
    """
    numbers, of = np.unique(units.of[whole], return_inverse=True)
    most = float(beta.ppf(tail, len(numbers), 1))
    alone, everything = Units("group", of, len(numbers)), np.ones(len(of), np.bool_)
    drawn = _draw_shares(part[whole], everything, np.zeros(len(of), np.int64), None, alone)
    return min(most, float(np.quantile(drawn, tail)))


def _draw_shares(part: Mask, whole: Mask, labels: Ints, weights: Floats | None, units: Units) -> Floats:
    """Return float64[resamples], the share in each; NaN where it lacks a class or every picture of `whole`."""
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
        with np.errstate(divide="ignore", invalid="ignore"):  # what is not defined is NaN
            if weights is not None:  # each class keeps its share in use, however often it was drawn
                hits, counted = hits / totals * mass, counted / totals * mass
            shares.append(hits.sum(axis=1) / counted.sum(axis=1))
    return np.concatenate(shares)
