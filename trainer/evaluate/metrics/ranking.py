"""Scores of one class against the rest, and what their order says, for many weightings of the samples at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ranked:
    """Samples in falling order of score.

    order: int64[N]; truth: bool[N], in that order, whether a sample is of the class; ends: int64[M], the last place of
    each distinct score.
    """

    order: Ints
    truth: npt.NDArray[np.bool_]
    ends: Ints


@dataclass(frozen=True)
class Sweep:
    """Weight of true and false positives, float64[B, M], at every distinct score as threshold, for B weightings.

    gained, let_in: what each threshold adds to them. A figure is NaN for a weighting that leaves no sample of the
    class, or none of the rest, where it needs some.
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
        """Return float64[B], the sum over thresholds of precision times the gain of recall, as scikit-learn has it."""
        said = self.true + self.false
        precision = np.divide(self.true, np.maximum(said, 1e-300, out=said), out=said)
        return _divide(np.einsum("bm,bm->b", self.gained, precision), self.true[:, -1])

    def sensitivity_at(self, specificity: float) -> Floats:
        """Return float64[B], the highest sensitivity of all thresholds that keep at least this specificity."""
        # The slack lets 0.9 of 10 negatives be 9 of them, whatever 1 - 0.9 is in binary.
        kept = self.false <= (1 - specificity) * self.false[:, -1:] * (1 + 1e-9)
        last = kept.sum(axis=1) - 1  # both columns only grow
        best = np.where(last >= 0, self.true[np.arange(len(last)), last], 0.0)
        return np.where(self.false[:, -1] > 0, _divide(best, self.true[:, -1]), np.nan)


def rank_scores(truth: npt.NDArray[np.bool_], scores: Floats) -> Ranked:
    """Return samples, truth bool[N] and scores float64[N], in falling order of score."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
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
