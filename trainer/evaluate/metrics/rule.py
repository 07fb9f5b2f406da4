"""How logits become predictions in an evaluation, and which class is the one that is looked for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from shards.dataset.positive import find_misfit
from shards.errors import UsageError
from trainer.contract.task import Task, Thresholds

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """What the task predicts where these thresholds are given.

    positive: number of the class that is looked for, whose sensitivity and specificity are told; None: none is.
    thresholds: 0..1, on the probabilities of classes, by their number.
    """

    task: Task
    positive: int | None = None
    thresholds: Thresholds = field(default_factory=dict)

    @property
    def threshold(self) -> float | None:
        """That of the positive class, where it has one."""
        return None if self.positive is None else self.thresholds.get(self.positive)

    def predict(self, logits: npt.NDArray[np.float32], probabilities: Floats) -> Ints:
        """Return the labels of N samples of logits float32[N, K], which give probabilities float64[N, K]."""
        return self.task.predict(logits, probabilities, self.thresholds)

    def describe(self, classes: list[str]) -> dict[str, object]:
        """Return the rule for metrics.json."""
        thresholds = self.task.list_thresholds(self.thresholds, len(classes))
        positive = {} if self.positive is None else {"positive": classes[self.positive]}
        return {"rule": self.task.name_rule(self.thresholds), **_describe(thresholds, classes), **positive}


def _describe(thresholds: Thresholds, classes: list[str]) -> dict[str, object]:
    """Return thresholds by class; one that holds for all of them once."""
    if len(different := set(thresholds.values())) <= 1:
        return dict(zip(["threshold"], different, strict=False))
    return {"thresholds": {classes[number]: threshold for number, threshold in thresholds.items()}}


def find_rule(task: Task, classes: list[str], positive: str | None = None, threshold: float | None = None) -> Rule:
    """Return the rule that a user means by the names of `trainer.evaluate`: --positive and --threshold.

    Where a picture is of one class, the class that is looked for is `positive`, else the task's own, and it has the
    threshold. Where it is of any number, the threshold is that of `positive` alone, else of every class.

    Raises:
        UsageError: An unknown class, a threshold that is no probability, one without a class that it is for, or a class
            without the threshold that it is named for.
    """
    _check(classes, positive, threshold)
    if task.is_exclusive:
        return _find_positive(task, classes, positive, threshold)
    if threshold is None and positive is not None:
        raise UsageError(
            f"--positive {positive} alone says nothing where a picture has several labels: the metrics of each class "
            "are there anyway; give it a --threshold"
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
            f"--threshold {threshold:g} is for the probability of one class, and there are {len(classes)}; "
            "name it with --positive CLASS"
        )
    return Rule(task)


def _check(classes: list[str], positive: str | None, threshold: float | None) -> None:
    if positive is not None and positive not in classes:
        raise UsageError(f"--positive {positive} {find_misfit(positive, classes)}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise UsageError(f"--threshold is a probability and must be in 0..1, got {threshold:g}")
