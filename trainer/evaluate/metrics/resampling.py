"""The bootstrap: samples, or whole groups of them, are drawn with replacement.

A resample is a weighting of the samples, and each metric is computed for a block of weightings at once; the model's
outputs are the same in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trainer.contract.metrics import list_metrics
from trainer.contract.task import Task

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Values = dict[str, Floats]

LEVEL = 0.95
TAILS = (1 - LEVEL) / 2, (1 + LEVEL) / 2
SEED = 0
RESAMPLES, FEWEST = 1000, 200
_BLOCK = 1 << 18
"""Number of float64 weights in memory at once, to fit a CPU's cache."""
_DRAWS = 100_000_000
"""Maximum number of weights in total; beyond it there are fewer resamples, but at least FEWEST."""
RANKED_DRAWS = 20_000_000
"""The same limit for ranking metrics over all classes, and for slices, which cost several times as much."""
_RANKED_MOST = 2_000_000
"""Samples times classes beyond which ranking metrics have no intervals."""
_HELD = ((60, 93), (30, 92), (20, 90), (10, 84))
"""Number of groups, descending, and the coverage of 100 nominal 95 % intervals with that many groups, measured in
tests/bench/results/2026-11-30-few-groups.md; the average for groups of equal and of different sizes."""
_FEW_GROUPS = 100
"""From this number of groups on, coverage is 93 to 95 of 100, within the accuracy of 1,000 simulations."""
UNDEFINED_MOST = 0.1
"""Share of the resamples that may leave a metric undefined because a class is missing."""
SAME = "every resample gives the same value"
TOO_MANY = "too many samples and classes to resample in time"
BY_CLASS = "class/"
"""Prefix of the names of values by class."""


@dataclass(frozen=True)
class Units:
    """The units of resampling. by: sample or group; of: int64[N], the unit of each sample; number: number of units."""

    by: str
    of: Ints
    number: int

    def draw(self, rng: np.random.Generator, resamples: int) -> Floats:
        """Return float64[resamples, N], how often each bootstrap resample of samples or groups contains each sample."""
        drawn = rng.integers(0, self.number, (resamples, self.number)) + np.arange(resamples)[:, None] * self.number
        times = np.bincount(drawn.ravel(), minlength=resamples * self.number).reshape(resamples, -1).astype(np.float64)
        return times if self.by == "sample" else times[:, self.of]


def find_units(num_samples: int, groups: pa.Array | None) -> Units:
    """Return groups as units if any two samples share one, else samples; a sample without a group is its own unit."""
    own = np.arange(num_samples)
    if groups is None:
        return Units("sample", own, num_samples)
    named = pc.if_else(pc.equal(groups, ""), pa.scalar(None, pa.string()), groups).dictionary_encode()
    codes, number = (
        pc.fill_null(named.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64),
        len(named.dictionary),
    )
    alone = codes < 0
    codes[alone] = number + own[: int(alone.sum())]
    number += int(alone.sum())
    return Units("sample", own, num_samples) if number == num_samples else Units("group", codes, number)


def describe_few(units: Units) -> list[str]:
    """Return notes about intervals with few groups."""
    if units.by != "group" or units.number >= _FEW_GROUPS:
        return []
    held = next((f"about {share}" for number, share in _HELD if units.number >= number), f"fewer than {_HELD[-1][1]}")
    return [
        f"intervals of {units.number} groups are too narrow: {held} of 100 contain the truth, not 95; use at least "
        f"{_FEW_GROUPS} groups"
    ]


@dataclass(frozen=True)
class Draws:
    """The plan of draws. resamples: for all metrics; ranked: for ranking metrics, 0: too costly."""

    units: Units
    resamples: int
    ranked: int

    def describe(self) -> dict[str, Any]:
        """Return a description of the method, with notes."""
        how: dict[str, Any] = {"method": "percentile bootstrap", "level": LEVEL}
        how |= {"by": self.units.by, "units": self.units.number, "resamples": self.resamples}
        if 0 < self.ranked < self.resamples:
            how["resamples_of_ranks"] = self.ranked
        few = describe_few(self.units)
        return how | {"notes": {"groups": few[0]} if few else {}}


def plan_draws(units: Units, rankings: int, resamples: int) -> Draws:
    """Return the number of draws of units for N samples with `rankings` ranking metrics."""
    size = len(units.of)
    most = min(resamples, max(FEWEST, _DRAWS // size))
    few = min(most, max(FEWEST, RANKED_DRAWS // (size * rankings)))
    return Draws(units, most, few if size * rankings <= _RANKED_MOST else 0)


def resample(
    draws: Draws, width: int, judge: Callable[[Floats], Values], judge_order: Callable[[Floats], Values]
) -> Values:
    """Return each metric's values float64[resamples, ...] from functions of weights float64[B, N].

    Args:
        draws: The plan of draws.
        width: Numbers in memory per resample.
        judge: Computes most metrics.
        judge_order: Computes ranking metrics; gets the first `draws.ranked` weights.
    """
    rng = np.random.default_rng(SEED)
    parts: list[Values] = []
    left = draws.ranked
    for size in cut_blocks(draws.resamples, width):
        weights = draws.units.draw(rng, size)
        parts.append(judge(weights) | (judge_order(weights[:left]) if left > 0 else {}))
        left -= size
    return {name: np.concatenate([part[name] for part in parts if name in part]) for name in parts[0]}


def average(means: Values, weights: Floats) -> Values:
    """Return float64[B], the mean of each of float64[N] by weights float64[B, N]."""
    # Not with BLAS: its order of addition depends on the number of threads, which depends on that of ranks.
    return {name: np.einsum("bn,n->b", weights, mean) / weights.sum(axis=1) for name, mean in means.items()}


def cut_blocks(resamples: int, width: int) -> Iterator[int]:
    """Yield the resamples of each block, sized so that `width` numbers for each fit a CPU's cache."""
    block = max(1, _BLOCK // width)
    for start in range(0, resamples, block):
        yield min(block, resamples - start)


def list_unbounded(task: Task) -> dict[str, str]:
    """Return the reasons for metrics of a task that have no interval by design."""
    return {metric.key: metric.unbounded for metric in list_metrics(task.name) if metric.unbounded}


def bound_values(
    values: Values, classes: list[str], bound_sure: Callable[[str], tuple[list[float], str] | None]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return [low, high] by name of metric, those of each class in per_class, and why a metric has none or another's.

    Args:
        values: The result of `resample`.
        classes: K names.
        bound_sure: Returns bounds and a note for a metric that is equal in every resample; None: no bounds.
    """
    intervals: dict[str, Any] = {}
    notes: dict[str, str] = {}
    for name in (name for name in values if not name.startswith(BY_CLASS)):
        bounds, note = _bound(values[name])
        sure = bound_sure(name) if note == SAME else None
        bounds, note = sure or (bounds, note)
        if bounds:
            intervals[name] = bounds
        if note:
            notes[name] = note
    columns = {name.removeprefix(BY_CLASS): value for name, value in values.items() if name.startswith(BY_CLASS)}
    intervals["per_class"] = {
        name: {key: bounds for key, value in columns.items() if (bounds := _bound(value[:, number])[0])}
        for number, name in enumerate(classes)
    }
    return intervals, notes


def _bound(values: Floats) -> tuple[list[float] | None, str]:
    """Return [low, high] of a metric's values; None and the reason if there are none."""
    undefined = np.isnan(values)
    if undefined.mean() > UNDEFINED_MOST:
        return None, "a class is so rare that many resamples lack it"
    low, high = np.quantile(values[~undefined], TAILS)
    return ([float(low), float(high)], "") if low < high else (None, SAME)


def wilson(right: int, number: int) -> list[float]:
    """Return the 95 % score interval of a proportion, `right` of `number` independent samples.

    Source: Wilson 1927.

    >>> [round(bound, 3) for bound in wilson(24, 24)]
    [0.862, 1.0]
    """
    z = 1.959964
    share, scale = right / number, 1 + z**2 / number
    centre = (share + z**2 / (2 * number)) / scale
    half = z / scale * float(np.sqrt(share * (1 - share) / number + z**2 / (4 * number**2)))
    return [max(0.0, centre - half), min(1.0, centre + half)]


def bound_mean(right: npt.NDArray[np.bool_], units: Units, resamples: int = RESAMPLES) -> list[float] | None:
    """Return the 95 % interval of the mean of `right` bool[N]: Wilson's by samples, bootstrap by groups.

    None if all samples are of one group.
    """
    if units.by == "sample":
        return wilson(int(right.sum()), len(right))
    if units.number < 2:
        return None
    rng = np.random.default_rng(SEED)
    totals = np.bincount(units.of, minlength=units.number), np.bincount(units.of, right, minlength=units.number)
    shares = []
    for size in cut_blocks(min(resamples, max(FEWEST, RANKED_DRAWS // units.number)), units.number):
        drawn = rng.integers(0, units.number, (size, units.number))
        shares.append(totals[1][drawn].sum(axis=1) / totals[0][drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(shares), TAILS)
    if low == high:
        return wilson(round(float(low) * units.number), units.number)
    return [float(low), float(high)]


def bound_same(right: npt.NDArray[np.bool_], units: Units, part: npt.NDArray[np.bool_]) -> tuple[list[float], str]:
    """Return Wilson's interval of a share of bool[N] that is equal in all resamples, and a note about it.

    Args:
        right: bool[N], hits.
        units: The units of resampling.
        part: bool[N], the samples that the share refers to.
    """
    number = len(np.unique(units.of[part]))
    note = f"{SAME}; it is Wilson's of {number:,} {units.by}s instead"
    return wilson(round(float(right[part].mean()) * number), number), note
