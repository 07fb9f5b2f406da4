"""How an evaluation converts logits to predictions, and the positive class; what metrics are computed from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.dataset.positive import find_misfit
from shards.errors import UsageError
from trainer.contract.task import Task, Thresholds

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """The prediction rule of a task with thresholds.

    positive: Number of the positive class, whose sensitivity and specificity are reported; None: there is none.
    thresholds: Thresholds 0..1 on the probabilities of classes, by class number.
    """

    task: Task
    positive: int | None = None
    thresholds: Thresholds = field(default_factory=dict)

    @property
    def threshold(self) -> float | None:
        """The threshold of the positive class, if it has one."""
        return None if self.positive is None else self.thresholds.get(self.positive)

    def predict(self, logits: npt.NDArray[np.float32], probabilities: Floats) -> Ints:
        """Return the labels of N samples from logits float32[N, K] and their probabilities float64[N, K]."""
        return self.task.predict(logits, probabilities, self.thresholds)

    def describe(self, classes: list[str]) -> dict[str, object]:
        """Return the rule for metrics.json."""
        thresholds = self.task.list_thresholds(self.thresholds, len(classes))
        positive = {} if self.positive is None else {"positive": classes[self.positive]}
        return {"rule": self.task.name_rule(self.thresholds), **_describe(thresholds, classes), **positive}


@dataclass(frozen=True)
class Scored:
    """A model's answers to samples with known labels, from which metrics are computed.

    labels: in the form of the rule's task; logits: float32[N, K]; classes: K names.
    """

    labels: Ints
    logits: npt.NDArray[np.float32]
    classes: list[str]
    rule: Rule

    @cached_property
    def probabilities(self) -> Floats:
        """float64[N, K]."""
        return self.rule.task.compute_probabilities(self.logits)

    @cached_property
    def predicted(self) -> Ints:
        """Labels predicted by the rule."""
        return self.rule.predict(self.logits, self.probabilities)

    def tabulate(self) -> dict[str, Any]:
        """Return the tables that follow the single numbers in metrics.json."""
        raise NotImplementedError


def _describe(thresholds: Thresholds, classes: list[str]) -> dict[str, object]:
    """Return thresholds by class, or a single number if all are equal."""
    if len(different := set(thresholds.values())) <= 1:
        return dict(zip(["threshold"], different, strict=False))
    return {"thresholds": {classes[number]: threshold for number, threshold in thresholds.items()}}


def find_rule(task: Task, classes: list[str], positive: str | None = None, threshold: float | None = None) -> Rule:
    """Return the rule for the options --positive and --threshold of `trainer.evaluate`.

    With one label per picture, the positive class is `positive`, else the task's default, and the threshold applies to
    it. With several, the threshold applies to `positive` alone, else to every class.

    Raises:
        UsageError: An unknown class, a threshold out of range, a threshold without a class, or a class without the
            threshold it needs.
    """
    _check(classes, positive, threshold)
    if task.is_exclusive:
        return _find_positive(task, classes, positive, threshold)
    if threshold is None and positive is not None:
        raise UsageError(
            f"--positive {positive} alone has no effect with several labels per picture: the metrics of each class "
            "are reported anyway; add --threshold"
        )
    given = {} if threshold is None else dict.fromkeys(range(len(classes)), threshold)
    return Rule(task, None, {number: at for number, at in given.items() if positive in (None, classes[number])})


def _find_positive(task: Task, classes: list[str], positive: str | None, threshold: float | None) -> Rule:
    name = task.find_positive(classes) if positive is None else positive
    if name is not None:
        number = classes.index(name)
        return Rule(task, number, {} if threshold is None else {number: threshold})
    if threshold is not None:
        raise UsageError(
            f"--threshold {threshold:g} applies to one class, but there are {len(classes)}; "
            "name it with --positive CLASS"
        )
    return Rule(task)


def _check(classes: list[str], positive: str | None, threshold: float | None) -> None:
    if positive is not None and positive not in classes:
        raise UsageError(f"--positive {positive} {find_misfit(positive, classes)}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise UsageError(f"--threshold is a probability and must be in 0..1, got {threshold:g}")
