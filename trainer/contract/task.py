"""What a picture has, one label or any number of them, and all that follows from it.

`make_task` makes it of what a dataset and a bundle store. Arrays of labels are int64[N], the class of each sample,
where there is one; where there is any number int64[N, K] of 0 and 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from shards.dataset.manifest import Task as StoredTask
from shards.dataset.positive import default_positive

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Logits = npt.NDArray[np.float32]
RuleName = Literal["argmax", "threshold", "each"]
Thresholds = Mapping[int, float]
"""By class number: from what probability on a class is given."""
ClassNumbers = npt.NDArray[Any] | list[tuple[int, ...]]

THRESHOLD: Final = 0.5
"""Least probability at which a class counts as there, where each is asked for and none other is given."""
SEPARATOR: Final = ";"
"""Between the labels of one picture, as in the lists that are packed."""


class Task(ABC):
    """How logits become probabilities and these a prediction, and how labels are kept, compared and named.

    Both kinds of probabilities differ in their last bit: torch's are in the answers that bundles give, NumPy's in the
    files of evaluations, and neither may change.
    """

    name: ClassVar[StoredTask]
    rules: ClassVar[tuple[RuleName, ...]]
    """By which a decision may decide; the first without thresholds, the last with some."""
    is_exclusive: ClassVar[bool]
    """Whether a picture is of one class alone, which is then the decision and may be the one that is looked for."""
    facts: ClassVar[dict[str, str]]
    """What the files of an evaluation say of the task."""

    @abstractmethod
    def soften(self, calibrated: Tensor) -> Tensor:
        """Return the probabilities float64[..., K] of calibrated logits float64[..., K]."""

    @abstractmethod
    def compute_probabilities(self, logits: Logits) -> Floats:
        """Return the probabilities float64[N, K] of logits float32[N, K]."""

    @abstractmethod
    def predict(self, scores: npt.NDArray[np.floating], probabilities: Floats, thresholds: Thresholds, /) -> Ints:
        """Return the predicted labels of N samples.

        Args:
            scores: [N, K], by which classes are ranked: logits, or the probabilities themselves.
            probabilities: float64[N, K].
            thresholds: Those that are given.
        """

    def name_rule(self, thresholds: Thresholds) -> RuleName:
        """Return the rule that is applied where these thresholds are given."""
        return self.rules[-1] if thresholds else self.rules[0]

    @abstractmethod
    def list_thresholds(self, thresholds: Thresholds, num_classes: int, /) -> Thresholds:
        """Return all thresholds that are in force where these are given."""

    @abstractmethod
    def flag(self, labels: Ints, num_classes: int, /) -> Bools:
        """Return bool[N, K], the view by class: whether each sample has it."""

    @abstractmethod
    def compare(self, labels: Ints, predicted: Ints) -> Bools:
        """Return bool[N], whether all that was predicted of a sample is right."""

    @abstractmethod
    def log_losses(self, labels: Ints, logits: Logits) -> Floats:
        """Return the log loss of each answer in nats, float64[N] or [N, K]; from logits, so never cut off."""

    @abstractmethod
    def rate_truth(self, labels: Ints, logits: Logits) -> Floats:
        """Return float64[N], the probability of each sample's class; of several, the geometric mean over answers."""

    @abstractmethod
    def log_answers(self, logits: Tensor) -> Tensor:
        """Return [n, Q, A] of logits [n, K], the logarithms of the probabilities of A answers to Q questions."""

    @abstractmethod
    def name_labels(self, labels: Ints, classes: Sequence[str]) -> list[str]:
        """Return the labels of each sample as text; several are joined, none are empty."""

    @abstractmethod
    def read_labels(self, names: Sequence[str], classes: Sequence[str]) -> Ints:
        """Return the labels that `name_labels` named; raises ValueError for names that are no classes."""

    @abstractmethod
    def gather(self, labels: Sequence[tuple[int, ...]], num_classes: int, /) -> Tensor:
        """Return the labels of a batch as losses take them, of the class numbers that each sample has."""

    @abstractmethod
    def read_index(self, read_column: Callable[[str], npt.NDArray[Any]]) -> ClassNumbers:
        """Return the class number of each sample, or its class numbers, of columns of a dataset's index."""

    @abstractmethod
    def find_positive(self, classes: Sequence[str], /) -> str | None:
        """Return the class that is positive where nothing names one; None where none is."""


class OneLabel(Task):
    """A picture is of one of the classes."""

    name = "single-label"
    rules = ("argmax", "threshold")
    is_exclusive = True
    facts: ClassVar[dict[str, str]] = {}

    def soften(self, calibrated: Tensor) -> Tensor:
        """Softmax: they sum to 1."""
        return torch.softmax(calibrated, dim=-1)

    def compute_probabilities(self, logits: Logits) -> Floats:
        """Softmax: they sum to 1."""
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        exponentials: Floats = np.exp(shifted, out=shifted)
        exponentials /= exponentials.sum(axis=1, keepdims=True)
        return exponentials

    def predict(self, scores: npt.NDArray[np.floating], probabilities: Floats, thresholds: Thresholds, /) -> Ints:
        """Return int64[N], the class whose threshold is reached, else that with the highest score of the others.

        The lower class number wins a tie.

        >>> shares = np.array([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6]])
        >>> [ONE_LABEL.predict(shares, shares, {2: at}).tolist() for at in (0.2, 0.7)]
        [[2, 2], [0, 1]]
        """
        others = scores.copy()
        for number in thresholds:
            others[:, number] = -np.inf
        best: Ints = others.argmax(axis=1)
        for number, threshold in thresholds.items():
            best = np.where(probabilities[:, number] >= threshold, number, best)
        return best

    def list_thresholds(self, thresholds: Thresholds, _: int, /) -> Thresholds:
        """Return those that are given."""
        return thresholds

    def flag(self, labels: Ints, num_classes: int, /) -> Bools:
        """Return one yes a sample."""
        flags: Bools = labels[:, None] == np.arange(num_classes)
        return flags

    def compare(self, labels: Ints, predicted: Ints) -> Bools:
        """Compare the classes."""
        return labels == predicted

    def log_losses(self, labels: Ints, logits: Logits) -> Floats:
        """Return float64[N]."""
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        own = shifted[np.arange(len(labels)), labels]
        losses: Floats = np.log(np.exp(shifted, out=shifted).sum(axis=1)) - own
        return losses

    def rate_truth(self, labels: Ints, logits: Logits) -> Floats:
        """Return the probability of the class."""
        return self.compute_probabilities(logits)[np.arange(len(labels)), labels]

    def log_answers(self, logits: Tensor) -> Tensor:
        """Return [n, 1, K]: the one question has a class as its answer."""
        return functional.log_softmax(logits, 1)[:, None]

    def name_labels(self, labels: Ints, classes: Sequence[str]) -> list[str]:
        """Return the class name of each of int64[N]."""
        return [classes[label] for label in labels.tolist()]

    def read_labels(self, names: Sequence[str], classes: Sequence[str]) -> Ints:
        """Return int64[N]."""
        numbers = {name: number for number, name in enumerate(classes)}
        found = [numbers.get(name, -1) for name in names]
        if lost := found.count(-1):
            raise ValueError(f"{lost} rows have labels that are no classes")
        return np.array(found, dtype=np.int64)

    def gather(self, labels: Sequence[tuple[int, ...]], _: int, /) -> Tensor:
        """Return int64[n]; -1 for a sample without a label."""
        return torch.tensor([own[0] if own else -1 for own in labels], dtype=torch.int64)

    def read_index(self, read_column: Callable[[str], npt.NDArray[Any]]) -> ClassNumbers:
        """Return int32[N]."""
        return read_column("label")

    def find_positive(self, classes: Sequence[str], /) -> str | None:
        """Return the second of two."""
        return default_positive(classes)


class ManyLabels(Task):
    """A picture is of any number of the classes: each of them is a question of its own."""

    name = "multi-label"
    rules = ("each",)
    is_exclusive = False
    facts: ClassVar[dict[str, str]] = {"task": "multi-label"}

    def soften(self, calibrated: Tensor) -> Tensor:
        """Sigmoid of each."""
        return torch.sigmoid(calibrated)

    def compute_probabilities(self, logits: Logits) -> Floats:
        """Sigmoid of each."""
        from scipy.special import expit  # late: it takes seconds, and most processes never evaluate

        probabilities: Floats = expit(logits.astype(np.float64))
        return probabilities

    def predict(self, _: npt.NDArray[np.floating], probabilities: Floats, thresholds: Thresholds, /) -> Ints:
        """Return int64[N, K], 1 for every class whose own probability reaches its threshold; scores do not count.

        >>> MANY_LABELS.predict(np.zeros((1, 3)), np.array([[0.5, 0.4, 0.4]]), {2: 0.3}).tolist()
        [[1, 0, 1]]
        """
        in_force = self.list_thresholds(thresholds, probabilities.shape[1])
        return (probabilities >= np.array(list(in_force.values()))).astype(np.int64)

    def list_thresholds(self, thresholds: Thresholds, num_classes: int, /) -> Thresholds:
        """Return one of each class, 0.5 where none is given."""
        return {number: thresholds.get(number, THRESHOLD) for number in range(num_classes)}

    def flag(self, labels: Ints, _: int, /) -> Bools:
        """Return the labels themselves."""
        return labels.astype(np.bool_)

    def compare(self, labels: Ints, predicted: Ints) -> Bools:
        """Compare all answers."""
        same: Bools = (labels == predicted).all(axis=1)
        return same

    def log_losses(self, labels: Ints, logits: Logits) -> Floats:
        """Return float64[N, K], the binary cross-entropy of each answer."""
        wide = logits.astype(np.float64)
        losses: Floats = np.logaddexp(0.0, wide) - labels * wide
        return losses

    def rate_truth(self, labels: Ints, logits: Logits) -> Floats:
        """Return the geometric mean of the probabilities of the right answers."""
        rates: Floats = np.exp(-self.log_losses(labels, logits).mean(axis=1))
        return rates

    def log_answers(self, logits: Tensor) -> Tensor:
        """Return [n, K, 2]: each class is a question, with the answers yes and no."""
        return torch.stack([functional.logsigmoid(logits), functional.logsigmoid(-logits)], dim=2)

    def name_labels(self, labels: Ints, classes: Sequence[str]) -> list[str]:
        """Return the joined names of each row of int64[N, K]."""
        return [SEPARATOR.join(classes[number] for number in np.flatnonzero(row).tolist()) for row in labels]

    def read_labels(self, names: Sequence[str], classes: Sequence[str]) -> Ints:
        """Return int64[N, K].

        >>> MANY_LABELS.read_labels(["a;c", ""], ["a", "b", "c"]).tolist()
        [[1, 0, 1], [0, 0, 0]]
        """
        flags = np.zeros((len(names), len(classes)), dtype=np.int64)
        for row, joined in enumerate(names):
            flags[row, [classes.index(name) for name in filter(None, joined.split(SEPARATOR))]] = 1
        return flags

    def gather(self, labels: Sequence[tuple[int, ...]], num_classes: int, /) -> Tensor:
        """Return float32[n, K], 1 for each label."""
        pairs = [(row, label) for row, own in enumerate(labels) for label in own]
        rows, columns = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).T
        return torch.zeros((len(labels), num_classes)).index_put((rows, columns), torch.tensor(1.0))

    def read_index(self, read_column: Callable[[str], npt.NDArray[Any]]) -> ClassNumbers:
        """Return N tuples."""
        return [tuple(labels.tolist()) for labels in read_column("labels")]

    def find_positive(self, _: Sequence[str], /) -> str | None:
        """Return None: no class is looked for before the others."""
        return None


ONE_LABEL: Final = OneLabel()
MANY_LABELS: Final = ManyLabels()
_TASKS: Final[dict[str, Task]] = {
    "single-label": ONE_LABEL,
    "multi-label": MANY_LABELS,
    # Their pictures can be read and shown; what needs a label has refused them (`Dataset.require_labels`).
    "unlabelled": ONE_LABEL,
}


def make_task(stored: StoredTask) -> Task:
    """Return the task that a dataset's manifest or a bundle's page stores.

    >>> make_task("multi-label").rules
    ('each',)
    """
    return _TASKS[stored]
