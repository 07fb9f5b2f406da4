"""Differences of two variants where both the seeds and the pictures are random.

A score s[r, i] of run r on picture i is taken apart into the variant's mean, what is special to the picture, what is
special to the run (the seed's luck), and the rest, which is special to both. Runs are nested in variants; all of them
saw the same pictures. Its mean over runs and pictures is the metric.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error and the degrees of freedom of that."""

    value: float
    error: float
    df: float

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, by Student's t."""
        reach = float(stats.t.ppf((1 + LEVEL) / 2, self.df)) * self.error if self.error else 0.0
        return self.value - reach, self.value + reach

    @property
    def p(self) -> float:
        """Of a value of 0, two-sided."""
        if not self.error:
            return 1.0 if self.value == 0 else 0.0
        return float(2 * stats.t.sf(abs(self.value) / self.error, self.df))


def estimate_mean(scores: Floats, groups: Ints | None = None) -> Estimate:
    """Return the mean of scores float64[runs, pictures]; see `estimate_difference`."""
    return _estimate([(1.0, scores)], groups)


def estimate_difference(variant: Floats, baseline: Floats, groups: Ints | None = None) -> Estimate:
    """Return the mean of a variant less that of the baseline.

    Its variance has three parts: A, how much the difference varies over pictures; B, how much runs vary; both hold the
    rest (C), which is counted once. Degrees of freedom are those of Satterthwaite. Of a variant with a single run, B is
    unknown and left out.

    Args:
        variant: float64[runs, pictures].
        baseline: float64[runs, pictures], the same pictures in the same order.
        groups: int64[pictures]; pictures of one group are drawn together. None: each is a group of its own.

    Source: Searle, Casella & McCulloch, Variance Components (1992), 5.3 (crossed model, method of moments);
    Satterthwaite, Biometrics Bulletin 2 (1946), 110.
    """
    return _estimate([(1.0, variant), (-1.0, baseline)], groups)


def _estimate(signed: list[tuple[float, Floats]], groups: Ints | None) -> Estimate:
    per_picture = np.sum([sign * scores.mean(axis=0) for sign, scores in signed], axis=0)
    several = [scores for _, scores in signed if len(scores) > 1]
    pictures = _Part(_vary(per_picture, groups), _count(per_picture, groups) - 1)
    runs = [_Part(float(scores.mean(axis=1).var(ddof=1)) / len(scores), len(scores) - 1) for scores in several]
    of_runs, rest = sum(part.variance for part in runs), sum(_measure_rest(scores, groups) for scores in several)
    variance, parts = pictures.variance + of_runs - rest, [pictures, *runs]
    if variance < pictures.variance:  # the luck of seeds is less than that of single pictures
        variance, parts = pictures.variance, [pictures]
    if variance < of_runs:
        variance, parts = of_runs, runs
    spread = sum(part.variance**2 / part.df for part in parts)
    df = variance**2 / spread if spread else pictures.df
    return Estimate(float(per_picture.mean()), float(np.sqrt(variance)), float(df))


class _Part(NamedTuple):
    variance: float
    df: int


def _count(values: Floats, groups: Ints | None) -> int:
    return len(values) if groups is None else len(np.unique(groups))


def _vary(values: Floats, groups: Ints | None) -> float:
    """Return the variance of the mean of values over pictures, whole groups of them drawn."""
    off = values - values.mean()
    sums = off if groups is None else np.bincount(groups, off)[np.unique(groups)]
    return float(len(sums) / (len(sums) - 1) * (sums**2).sum() / len(values) ** 2)


def _measure_rest(scores: Floats, groups: Ints | None) -> float:
    """Return the part of the variance of a mean that is of single runs on single pictures."""
    runs = len(scores)
    rest = scores - scores.mean(axis=0)
    return float(np.mean([_vary(row, groups) for row in rest])) * runs / (runs - 1) / runs
