"""Variants of a recipe against a baseline: means over seeds, paired differences, and what may be claimed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict
from statsmodels.stats.multitest import multipletests

from shards.errors import UsageError
from trainer.contract.metrics import is_lower_better
from tune.stats.paired import Estimate, Floats, estimate_difference, estimate_mean
from tune.stats.runs import Variant, find_groups
from tune.stats.scores import METRICS

ALPHA = 0.05


class Row(BaseModel):
    """What is known of one variant; of the baseline without a difference.

    interval, difference_interval: 95 %, for new seeds and pictures, not adjusted. p: of no difference; p_holm: adjusted
    for the number of variants. sd: of single runs; None for one seed.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    seeds: int
    mean: float
    sd: float | None
    interval: tuple[float, float]
    difference: float | None = None
    difference_interval: tuple[float, float] | None = None
    p: float | None = None
    p_holm: float | None = None
    sentence: str

    @property
    def differs(self) -> bool:
        """Whether the difference is significant after adjustment."""
        return self.p_holm is not None and self.p_holm < ALPHA


class Comparison(BaseModel):
    """A table of variants; rows are in the order that they were named in, the baseline first."""

    model_config = ConfigDict(frozen=True)

    metric: str
    baseline: str
    pictures: int
    groups: int | None
    single_seeds: list[str]
    """Variants with one run, whose luck in training is in no interval."""
    rows: list[Row]


def compare(variants: Sequence[Variant], baseline: str, metric: str = "accuracy") -> Comparison:
    """Compare variants with a baseline by a metric.

    Raises:
        UsageError: No such metric or baseline, no other variant, or pictures that the metric cannot be computed on.
    """
    if metric not in METRICS:
        raise UsageError(f"no metric '{metric}' to compare by; there are {', '.join(METRICS)}")
    names = [variant.name for variant in variants]
    if baseline not in names:
        raise UsageError(f"the baseline {baseline} is none of the variants, which are {', '.join(names)}")
    if len(names) < 2:
        raise UsageError(f"{baseline} alone has nothing to be compared with; name another --variant")
    ordered = sorted(variants, key=lambda variant: variant.name != baseline)
    scores = {variant.name: _score(variant, metric) for variant in ordered}
    groups = find_groups(variants[0].runs[0])
    differences = {
        name: estimate_difference(scores[name], scores[baseline], groups) for name in scores if name != baseline
    }
    adjusted = multipletests([each.p for each in differences.values()], ALPHA, method="holm")[1]
    holm = dict(zip(differences, map(float, adjusted), strict=True))
    single = [name for name, values in scores.items() if len(values) == 1]
    base = estimate_mean(scores[baseline], groups)
    rows = [_make_row(baseline, scores[baseline], base, f"{baseline} is the baseline: {metric} {spell(base, metric)}")]
    for name, difference in differences.items():
        alone = [each for each in (name, baseline) if each in single]
        compared = {
            "difference": difference.value,
            "difference_interval": difference.interval,
            "p": difference.p,
            "p_holm": holm[name],
        }
        claim = _claim(name, difference, holm[name], metric, baseline, alone)
        rows.append(_make_row(name, scores[name], estimate_mean(scores[name], groups), claim, **compared))
    return Comparison(
        metric=metric,
        baseline=baseline,
        pictures=len(next(iter(scores.values()))[0]),
        groups=None if groups is None else len(np.unique(groups)),
        single_seeds=single,
        rows=rows,
    )


def _score(variant: Variant, metric: str) -> Floats:
    """Return float64[runs, pictures]."""
    return np.stack([METRICS[metric](run.labels, run.logits) for run in variant.runs])


def _make_row(name: str, scores: Floats, mean: Estimate, sentence: str, **compared: Any) -> Row:
    sd = float(scores.mean(axis=1).std(ddof=1)) if len(scores) > 1 else None
    return Row(
        name=name, seeds=len(scores), mean=mean.value, sd=sd, interval=mean.interval, sentence=sentence, **compared
    )


def _claim(name: str, difference: Estimate, holm: float, metric: str, baseline: str, single: Sequence[str]) -> str:
    figures = spell(difference, metric, signed=True)
    if single:
        return (
            f"{name} scored {figures} against {baseline} on these pictures; {' and '.join(single)} "
            f"{'have' if len(single) > 1 else 'has'} one run, so luck in training is not counted and nothing is claimed"
        )
    if holm >= ALPHA:
        return f"no evidence that {name} differs from {baseline}: {figures}"
    is_better = (difference.value > 0) != is_lower_better(metric)
    return f"{name} is {'better' if is_better else 'worse'} than {baseline}: {figures}, p {holm:.2g} (Holm)"


def spell(estimate: Estimate, metric: str, signed: bool = False) -> str:
    """Return a number with its interval: shares in points of a hundredth, a loss as it is.

    >>> spell(Estimate(-0.004, 0.005, 1000), "accuracy", signed=True)
    '-0.4 points [-1.4, +0.6]'
    >>> spell(Estimate(0.5, 0.1, 1000), "log_loss")
    '0.500 [0.304, 0.696]'
    """
    sign = "+" if signed else ""
    low, high = estimate.interval
    if metric == "log_loss":
        return f"{estimate.value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"
    value, low, high = (100 * number for number in (estimate.value, low, high))
    unit = " points" if signed else " %"
    return f"{value:{sign}.1f}{unit} [{low:{sign}.1f}, {high:{sign}.1f}]"
