"""How logits become predictions in an evaluation, and which class is the one that is looked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shards.dataset.positive import default_positive, find_misfit
from shards.errors import UsageError
from trainer.contract.decision.decision import THRESHOLD

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """The most probable class, or the positive class wherever its probability reaches a threshold.

    positive: number of the class that is looked for, whose sensitivity and specificity are told; None: none is.
    threshold: 0..1, on the positive class's probability; None takes the most probable class.
    """

    positive: int | None = None
    threshold: float | None = None

    def predict(self, logits: npt.NDArray[np.float32], probabilities: Floats) -> Ints:
        """Return int64[N], a class for each of logits float32[N, K], which give probabilities float64[N, K].

        Below the threshold it is the most probable of the other classes; the lower number wins a tie.
        """
        if self.threshold is None:
            best: Ints = logits.argmax(axis=1)
            return best
        assert self.positive is not None  # find_rule sees to it
        others = logits.copy()
        others[:, self.positive] = -np.inf
        reached = probabilities[:, self.positive] >= self.threshold
        return np.where(reached, self.positive, others.argmax(axis=1))

    def describe(self, classes: list[str]) -> dict[str, object]:
        """Return the rule for metrics.json."""
        positive = {} if self.positive is None else {"positive": classes[self.positive]}
        if self.threshold is None:
            return {"rule": "argmax", **positive}
        return {"rule": "threshold", "threshold": self.threshold, **positive}


@dataclass(frozen=True)
class EachRule:
    """Where a picture has any number of labels: every class whose own probability reaches its threshold.

    thresholds: K of 0..1.
    """

    thresholds: tuple[float, ...]

    def predict(self, _: npt.NDArray[np.float32], probabilities: Floats) -> Ints:
        """Return int64[N, K], 1 for each class that is said to be there, of probabilities float64[N, K]."""
        return (probabilities >= np.array(self.thresholds)).astype(np.int64)

    def describe(self, classes: list[str]) -> dict[str, object]:
        """Return the rule for metrics.json."""
        if len(set(self.thresholds)) == 1:
            return {"rule": "each", "threshold": self.thresholds[0]}
        return {"rule": "each", "thresholds": dict(zip(classes, self.thresholds, strict=True))}


def find_each_rule(classes: list[str], positive: str | None = None, threshold: float | None = None) -> EachRule:
    """Return the rule that a user means: a threshold of all classes, or of `positive` alone; 0.5 where none is given.

    Raises:
        UsageError: An unknown class, one without a threshold, or a threshold that is no probability.
    """
    _check(classes, positive, threshold)
    if positive is not None and threshold is None:
        raise UsageError(
            f"--positive {positive} alone says nothing where a picture has several labels: the metrics of each class "
            "are there anyway; give it a --threshold"
        )
    at = THRESHOLD if threshold is None else threshold
    return EachRule(tuple(at if positive in (None, name) else THRESHOLD for name in classes))


def find_rule(classes: list[str], positive: str | None = None, threshold: float | None = None) -> Rule:
    """Return the rule that a user means; of two classes the second is positive unless `positive` names the first.

    Raises:
        UsageError: An unknown class, a threshold that is no probability, or one without a class that it is for.
    """
    _check(classes, positive, threshold)
    if positive is not None:
        return Rule(classes.index(positive), threshold)
    default = default_positive(classes)
    if default is not None:
        return Rule(classes.index(default), threshold)
    if threshold is not None:
        raise UsageError(
            f"--threshold {threshold:g} is for the probability of one class, and there are {len(classes)}; "
            "name it with --positive CLASS"
        )
    return Rule()


def _check(classes: list[str], positive: str | None, threshold: float | None) -> None:
    if positive is not None and positive not in classes:
        raise UsageError(f"--positive {positive} {find_misfit(positive, classes)}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise UsageError(f"--threshold is a probability and must be in 0..1, got {threshold:g}")
