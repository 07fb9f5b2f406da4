"""Ranking metrics of one class against the rest, for the samples as they are and for many weightings at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.evaluate.metrics.blocks import cut_rows

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_FEW = 16
"""Up to this number of samples of a class, each is compared with all scores; with many classes most have few."""


@dataclass(frozen=True)
class Areas:
    """Areas of one class against the rest; average_precision as in scikit-learn. Source: Hanley and McNeil 1982."""

    auroc: float | None
    """Share of pairs of a sample of the class and another sample that are in the right order, ties counting half; None
    if there are no such pairs."""
    average_precision: float


def measure_areas(own: npt.NDArray[Any], scores: npt.NDArray[Any]) -> Areas:
    """Return the areas for P > 0 samples of the class with scores `own` [P], among all N samples with scores [N].

    Pairs are counted in integers, so that the same order gives exactly the same number, and both classes of two have
    the same AUROC.
    """
    own, number = np.sort(own), len(own)
    above, reach = _compare(own, scores) if number <= _FEW else _look_up(own, scores)
    # The same counts among the samples of the class.
    own_above, own_reach = number - np.searchsorted(own, own, "right"), number - np.searchsorted(own, own, "left")
    rest = len(scores) - number
    halves = int((2 * rest - (above - own_above) - (reach - own_reach)).sum())
    return Areas(halves / (2 * number * rest) if rest else None, float((own_reach / reach).mean()))


def _compare(own: npt.NDArray[Any], scores: npt.NDArray[Any]) -> tuple[Ints, Ints]:
    """Return int64[P] each: how many of the N scores are above each of P, and how many are at least equal."""
    counts = [(np.count_nonzero(scores > score), np.count_nonzero(scores >= score)) for score in own]
    above, reach = np.array(counts, dtype=np.int64).T
    return above, reach


def _look_up(own: npt.NDArray[Any], scores: npt.NDArray[Any]) -> tuple[Ints, Ints]:
    """Like `_compare`, for ascending `own`: each score is looked up in it without sorting scores."""
    below, up_to = np.zeros(len(own) + 1, np.int64), np.zeros(len(own) + 1, np.int64)
    for rows in cut_rows(len(scores), 1):
        below += np.bincount(np.searchsorted(own, scores[rows], "left"), minlength=len(below))
        up_to += np.bincount(np.searchsorted(own, scores[rows], "right"), minlength=len(up_to))
    return len(scores) - np.cumsum(below)[:-1], len(scores) - np.cumsum(up_to)[:-1]


@dataclass(frozen=True)
class Ranked:
    """Samples in descending order of score.

    order: int64[N]; truth: bool[N], in that order, whether a sample is of the class; ends: int64[M], the last position
    of each distinct score.
    """

    order: Ints
    truth: npt.NDArray[np.bool_]
    ends: Ints


@dataclass(frozen=True)
class Sweep:
    """Weight of true and false positives, float64[B, M], at every distinct score as threshold, for B weightings.

    gained, let_in: What each threshold adds to them. A value is NaN for a weighting without samples of the class, or
    without others, if it needs them.
    """

    true: Floats
    false: Floats
    gained: Floats
    let_in: Floats

    def auroc(self) -> Floats:
        """Return float64[B], the area under the ROC curve."""
        area = np.einsum("bm,bm->b", self.let_in, self.true) - np.einsum("bm,bm->b", self.let_in, self.gained) / 2
        return _divide(area, self.true[:, -1] * self.false[:, -1])

    def average_precision(self) -> Floats:
        """Return float64[B], the sum over thresholds of precision times the gain of recall, as in scikit-learn."""
        said = self.true + self.false
        precision = np.divide(self.true, np.maximum(said, 1e-300, out=said), out=said)
        return _divide(np.einsum("bm,bm->b", self.gained, precision), self.true[:, -1])

    def sensitivity_at(self, specificity: float) -> Floats:
        """Return float64[B], the highest sensitivity of all thresholds with at least this specificity."""
        # The tolerance makes 0.9 of 10 negatives 9 of them despite rounding of 1 - 0.9.
        kept = self.false <= (1 - specificity) * self.false[:, -1:] * (1 + 1e-9)
        last = kept.sum(axis=1) - 1  # both columns only grow
        best = np.where(last >= 0, self.true[np.arange(len(last)), last], 0.0)
        return np.where(self.false[:, -1] > 0, _divide(best, self.true[:, -1]), np.nan)


def rank_scores(truth: npt.NDArray[np.bool_], scores: Floats) -> Ranked:
    """Return samples, truth bool[N] and scores float64[N], in descending order of score."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(scores) - 1)
    return Ranked(order, truth[order], ends)


def sweep_thresholds(ranked: Ranked, weights: Floats) -> Sweep:
    """Return the sweep for weights float64[B, N] of the samples."""
    ordered = weights[:, ranked.order]
    gained = ordered * ranked.truth
    let_in = np.subtract(ordered, gained, out=ordered)
    true, false = np.cumsum(gained, axis=1), np.cumsum(let_in, axis=1)
    if len(ranked.ends) == len(ranked.order):
        return Sweep(true, false, gained, let_in)
    true, false = true[:, ranked.ends], false[:, ranked.ends]
    return Sweep(true, false, np.diff(true, prepend=0.0), np.diff(false, prepend=0.0))


def _divide(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
