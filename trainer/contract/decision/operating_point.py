"""The operating point: the probability from which a picture counts as the class of interest.

The class `positive` is decided if its calibrated probability is at least the threshold; otherwise the most probable of
the other classes is. Thresholds equal observed probabilities, so that ties fall on the same side.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from shards.errors import ShardError, UsageError

Floats = npt.NDArray[np.float64]
Goal = Literal["recall", "precision", "max-f1", "cost", "sens@spec"]

NEVER: Final = float(np.nextafter(1.0, 2.0))
"""A threshold that no probability reaches."""
_SLACK: Final = 1e-12
_EXAMPLES: Final = "recall>=0.98, 'recall>=0.98 with 95 %', precision>=0.95, max-f1, 'cost fn=5,fp=1' or sens@spec=0.9"


class Interval(BaseModel):
    """A share, its 95 % interval, and what it was counted on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    low: float
    high: float
    count: int
    """Number of pictures that the share refers to."""


class OperatingPoint(BaseModel):
    """The threshold from which `positive` is decided, and its results on the split it was fitted to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    """The rule requested: recall>=0.98, max-f1, ..."""
    positive: str
    """The class of interest."""
    threshold: float = Field(ge=0, le=NEVER)
    """`positive` is decided if its probability is at least this; slightly above 1: never."""
    recall: Interval
    """Share of the positive pictures that are decided positive (sensitivity)."""
    precision: Interval | None
    """Share of pictures decided positive that are positive, at deployment's class shares; None if there are none."""
    specificity: Interval
    """Share of the other pictures that are not decided positive, at deployment's class shares."""
    bayes_threshold: float | None = None
    """fp / (fp + fn): the best threshold if probabilities were exact; for cost rules."""


@dataclass(frozen=True)
class PointRule:
    """A parsed rule for choosing an operating point.

    value: The recall, precision or specificity to reach. confidence: Probability, in (0, 1), that recall reaches the
    value on new pictures; None: only the pictures of the fit must reach it, and about half of the time new ones fall
    short. fn, fp: Costs of a missed positive and of a false alarm.
    """

    text: str
    goal: Goal
    value: float = 0.0
    confidence: float | None = None
    fn: float = 1.0
    fp: float = 1.0

    @property
    def bayes_threshold(self) -> float | None:
        """The threshold of least expected cost if probabilities were exact.

        Source: Elkan 2001 (The Foundations of Cost-Sensitive Learning, eq. 2).
        """
        return self.fp / (self.fp + self.fn) if self.goal == "cost" else None


def parse_rule(text: str) -> PointRule:
    """Return the rule that `text` spells.

    Raises:
        UsageError: Wrong syntax, or a number out of range.

    >>> parse_rule("cost fn=5,fp=1").bayes_threshold
    0.16666666666666666
    """
    plain = " ".join(text.split())
    number = r"(\d+(?:\.\d*)?|\.\d+)"
    if plain == "max-f1":
        return PointRule(plain, "max-f1")
    if match := re.fullmatch(rf"(?:(recall|precision) ?>=|(sens@spec) ?=) ?{number}(?: with {number} ?%)?", plain):
        value, sure = float(match[3]), match[4]
        if not 0 < value <= 1:
            raise UsageError(f"--point {plain}: a share must be above 0 and at most 1, got {match[3]}; 0.98 means 98 %")
        goal: Goal = "sens@spec" if match[2] else "recall" if match[1] == "recall" else "precision"
        return PointRule(plain, goal, value, _read_confidence(plain, goal, value, sure))
    if match := re.fullmatch(rf"cost (?:fn={number}, ?fp={number}|fp={number}, ?fn={number})", plain):
        fn, fp = float(match[1] or match[4]), float(match[2] or match[3])
        if min(fn, fp) <= 0:
            raise UsageError(f"--point {plain}: a mistake that costs nothing needs no decision; give costs above 0")
        return PointRule(plain, "cost", fn=fn, fp=fp)
    raise UsageError(f"--point is {_EXAMPLES}, got '{text}'")


def _read_confidence(text: str, goal: Goal, value: float, percent: str | None) -> float | None:
    if percent is None:
        return None
    if goal != "recall":
        raise UsageError(f"--point {text}: only recall takes a confidence; leave it out, or use recall>=0.98")
    if not 50 <= float(percent) < 100:
        raise UsageError(f"--point {text}: a confidence is at least 50 % and below 100 %, got {percent} %; use 95 %")
    if value == 1:
        raise UsageError(f"--point {text}: no number of pictures can guarantee a recall of 1; use 0.99 or less")
    return float(percent) / 100


@dataclass(frozen=True)
class Candidates:
    """The results of each threshold, from highest to lowest; all arrays float64[M].

    tp, fp: total weight of the positive and of the other pictures at or above the threshold.
    """

    thresholds: Floats
    tp: Floats
    fp: Floats
    positives: float
    negatives: float

    @property
    def recall(self) -> Floats:
        return self.tp / self.positives

    @property
    def precision(self) -> Floats:
        return self.tp / (self.tp + self.fp)

    @property
    def specificity(self) -> Floats:
        return (self.negatives - self.fp) / self.negatives

    @property
    def f1(self) -> Floats:
        return 2 * self.tp / (self.tp + self.fp + self.positives)


def list_candidates(scores: Floats, is_positive: npt.NDArray[np.bool_], weights: Floats) -> Candidates:
    """Return one candidate for each distinct score, the highest first.

    Args:
        scores: float64[N], probabilities of the positive class.
        is_positive: bool[N].
        weights: float64[N], > 0; 1, or the ratio of the class's share at deployment to its share here.
    """
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))  # of each run of equal scores
    positive, negative = np.where(is_positive, weights, 0.0), np.where(is_positive, 0.0, weights)
    return Candidates(
        falling[last],
        np.cumsum(positive[order])[last],
        np.cumsum(negative[order])[last],
        float(positive.sum()),
        float(negative.sum()),
    )


def choose_threshold(rule: PointRule, found: Candidates, positive: str) -> float:
    """Return the threshold that the rule asks for.

    recall: the highest threshold that reaches it, so that the fewest pictures are decided positive. precision and
    specificity: the lowest that reaches it, so that the most positives are found. max-f1, cost: the best; on ties the
    highest.

    Raises:
        ShardError: No threshold reaches the value; the message has the best one.
    """
    if rule.goal == "cost":
        never = rule.fn * found.positives
        costs = rule.fn * (found.positives - found.tp) + rule.fp * found.fp
        best = int(np.argmin(costs))
        # Never deciding positive is also a candidate; its threshold is the highest.
        return NEVER if never <= costs[best] * (1 + _SLACK) else float(found.thresholds[best])
    if rule.goal == "max-f1":
        return float(found.thresholds[np.argmax(found.f1)])
    of_goal = {"recall": found.recall, "precision": found.precision, "sens@spec": found.specificity}[rule.goal]
    reached = np.flatnonzero(of_goal >= rule.value - _SLACK)
    if len(reached) == 0:
        best = int(np.argmax(of_goal))
        what = "specificity" if rule.goal == "sens@spec" else rule.goal
        raise ShardError(
            f"no threshold on {positive} reaches {what} {rule.value:g}: the best is {of_goal[best]:.4f}, with recall "
            f"{found.recall[best]:.4f}; lower the value, or train a better model"
        )
    return float(found.thresholds[reached[0 if rule.goal == "recall" else -1]])
