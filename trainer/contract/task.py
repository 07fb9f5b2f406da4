"""Tasks: pictures with one label each or with any number of labels, and everything that depends on this.

`make_task` returns the task stored in a dataset or a bundle. Arrays of labels are int64[N], the class of each sample,
for one label; int64[N, K] of 0 and 1 for any number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from shards.dataset.positive import default_positive

if TYPE_CHECKING:
    from shards.dataset.manifest import Task as StoredTask  # serving does without it

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Logits = npt.NDArray[np.float32]
RuleName = Literal["argmax", "threshold", "each"]
Thresholds = Mapping[int, float]
"""By class number: the probability from which a class is predicted."""
ClassNumbers = npt.NDArray[Any] | list[tuple[int, ...]]

THRESHOLD: Final = 0.5
"""Default threshold of each class with several labels."""
SEPARATOR: Final = ";"
"""Separator of the labels of one picture, as in the lists to pack."""


class Task(ABC):
    """Converts logits to probabilities and predictions, and stores, compares and names labels.

    The two kinds of probabilities differ in their last bit: answers of bundles use torch's, files of evaluations
    NumPy's, and neither may change.
    """

    name: ClassVar[StoredTask]
    rules: ClassVar[tuple[RuleName, ...]]
    """Decision rules of the task; the first applies without thresholds, the last with some."""
    is_exclusive: ClassVar[bool]
    """Whether each picture has exactly one class, so that there are decisions and a positive class."""
    facts: ClassVar[dict[str, str]]
    """The task in the files of an evaluation."""

    @abstractmethod
    def soften(self, calibrated: Tensor) -> Tensor:
        """Return the probabilities float64[..., K] from calibrated logits float64[..., K]."""

    @abstractmethod
    def compute_probabilities(self, logits: Logits) -> Floats:
        """Return the probabilities float64[N, K] from logits float32[N, K]."""

    @abstractmethod
    def predict(self, scores: npt.NDArray[np.floating], probabilities: Floats, thresholds: Thresholds, /) -> Ints:
        """Return the predicted labels of N samples.

        Args:
            scores: [N, K], to rank classes by: logits or probabilities.
            probabilities: float64[N, K].
            thresholds: Explicit thresholds by class number.
        """

    def name_rule(self, thresholds: Thresholds) -> RuleName:
        """Return the rule that applies with these thresholds."""
        return self.rules[-1] if thresholds else self.rules[0]

    @abstractmethod
    def list_thresholds(self, thresholds: Thresholds, num_classes: int, /) -> Thresholds:
        """Return the thresholds that apply, including defaults."""

    @abstractmethod
    def flag(self, labels: Ints, num_classes: int, /) -> Bools:
        """Return bool[N, K], whether each sample has each class."""

    @abstractmethod
    def compare(self, labels: Ints, predicted: Ints) -> Bools:
        """Return bool[N], whether the whole prediction of a sample is correct."""

    @abstractmethod
    def log_losses(self, labels: Ints, logits: Logits) -> Floats:
        """Return the log loss of each answer in nats, float64[N] or [N, K]; computed from logits, so never clipped."""

    @abstractmethod
    def rate_truth(self, labels: Ints, logits: Logits) -> Floats:
        """Return float64[N], the probability of each sample's label; for several, the geometric mean over classes."""

    @abstractmethod
    def log_answers(self, logits: Tensor) -> Tensor:
        """Return [n, Q, A] from logits [n, K]: log-probabilities of A answers to Q questions."""

    @abstractmethod
    def name_labels(self, labels: Ints, classes: Sequence[str]) -> list[str]:
        """Return the labels of each sample as text; several labels are joined, no label gives ""."""

    @abstractmethod
    def read_labels(self, names: Sequence[str], classes: Sequence[str]) -> Ints:
        """Return the labels from the texts of `name_labels`; raises ValueError for unknown classes."""

    @abstractmethod
    def gather(self, labels: Sequence[tuple[int, ...]], num_classes: int, /) -> Tensor:
        """Return the labels of a batch in the form that losses take, from the class numbers of each sample."""

    @abstractmethod
    def read_index(self, read_column: Callable[[str], npt.NDArray[Any]]) -> ClassNumbers:
        """Return the class number or numbers of each sample, from columns of a dataset's index."""

    @abstractmethod
    def find_positive(self, classes: Sequence[str], /) -> str | None:
        """Return the default positive class; None if there is none."""


class OneLabel(Task):
    """Each picture has exactly one class."""

    name = "single-label"
    rules = ("argmax", "threshold")
    is_exclusive = True
    facts: ClassVar[dict[str, str]] = {}

    def soften(self, calibrated: Tensor) -> Tensor:
        """Apply softmax: the probabilities sum to 1."""
        return torch.softmax(calibrated, dim=-1)

    def compute_probabilities(self, logits: Logits) -> Floats:
        """Apply softmax: the probabilities sum to 1."""
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        exponentials: Floats = np.exp(shifted, out=shifted)
        exponentials /= exponentials.sum(axis=1, keepdims=True)
        return exponentials

    def predict(self, scores: npt.NDArray[np.floating], probabilities: Floats, thresholds: Thresholds, /) -> Ints:
        """Return int64[N], the class whose threshold is reached, else the highest-scoring other class.

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
        """Return the given thresholds."""
        return thresholds

    def flag(self, labels: Ints, num_classes: int, /) -> Bools:
        """Return a one-hot row for each sample."""
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
        """Return [n, 1, K]: one question, whose answers are the classes."""
        return functional.log_softmax(logits, 1)[:, None]

    def name_labels(self, labels: Ints, classes: Sequence[str]) -> list[str]:
        """Return the class name of each label in int64[N]."""
        return [classes[label] for label in labels.tolist()]

    def read_labels(self, names: Sequence[str], classes: Sequence[str]) -> Ints:
        """Return int64[N], the class number for each text of `name_labels`."""
        numbers = {name: number for number, name in enumerate(classes)}
        found = [numbers.get(name, -1) for name in names]
        if lost := found.count(-1):
            raise ValueError(f"{lost} rows have labels that are no classes")
        return np.array(found, dtype=np.int64)

    def gather(self, labels: Sequence[tuple[int, ...]], _: int, /) -> Tensor:
        """Return int64[n]; -1 for a sample without a label."""
        return torch.tensor([own[0] if own else -1 for own in labels], dtype=torch.int64)

    def read_index(self, read_column: Callable[[str], npt.NDArray[Any]]) -> ClassNumbers:
        """Return int32[N], the class number of each sample, from the column `label`."""
        return read_column("label")

    def find_positive(self, classes: Sequence[str], /) -> str | None:
        """Return the second of two classes."""
        return default_positive(classes)


class ManyLabels(Task):
    """Each picture has any number of classes; each class is a separate yes/no question."""

    name = "multi-label"
    rules = ("each",)
    is_exclusive = False
    facts: ClassVar[dict[str, str]] = {"task": "multi-label"}

    def soften(self, calibrated: Tensor) -> Tensor:
        """Apply the sigmoid to each class."""
        return torch.sigmoid(calibrated)

    def compute_probabilities(self, logits: Logits) -> Floats:
        """Apply the sigmoid to each class."""
        from scipy.special import expit  # late: it takes seconds, and most processes never evaluate

        probabilities: Floats = expit(logits.astype(np.float64))
        return probabilities

    def predict(self, _: npt.NDArray[np.floating], probabilities: Floats, thresholds: Thresholds, /) -> Ints:
        """Return int64[N, K], 1 for every class whose own probability reaches its threshold; scores are ignored.

        >>> MANY_LABELS.predict(np.zeros((1, 3)), np.array([[0.5, 0.4, 0.4]]), {2: 0.3}).tolist()
        [[1, 0, 1]]
        """
        in_force = self.list_thresholds(thresholds, probabilities.shape[1])
        return (probabilities >= np.array(list(in_force.values()))).astype(np.int64)

    def list_thresholds(self, thresholds: Thresholds, num_classes: int, /) -> Thresholds:
        """Return one threshold for each class, 0.5 by default."""
        return {number: thresholds.get(number, THRESHOLD) for number in range(num_classes)}

    def flag(self, labels: Ints, _: int, /) -> Bools:
        """Return the labels themselves."""
        return labels.astype(np.bool_)

    def compare(self, labels: Ints, predicted: Ints) -> Bools:
        """Compare whole rows."""
        same: Bools = (labels == predicted).all(axis=1)
        return same

    def log_losses(self, labels: Ints, logits: Logits) -> Floats:
        """Return float64[N, K], the binary cross-entropy of each answer."""
        wide = logits.astype(np.float64)
        losses: Floats = np.logaddexp(0.0, wide) - labels * wide
        return losses

    def rate_truth(self, labels: Ints, logits: Logits) -> Floats:
        """Return the geometric mean of the probabilities of the correct answers."""
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
        """Return N tuples of class numbers."""
        return [tuple(labels.tolist()) for labels in read_column("labels")]

    def find_positive(self, _: Sequence[str], /) -> str | None:
        """Return None: no class is positive by default."""
        return None


ONE_LABEL: Final = OneLabel()
MANY_LABELS: Final = ManyLabels()
_TASKS: Final[dict[str, Task]] = {
    "single-label": ONE_LABEL,
    "multi-label": MANY_LABELS,
    # Pictures without labels can be read and shown; `Dataset.require_labels` rejects them elsewhere.
    "unlabelled": ONE_LABEL,
}


def make_task(stored: StoredTask) -> Task:
    """Return the task stored in a dataset's manifest or a bundle.

    >>> make_task("multi-label").rules
    ('each',)
    """
    return _TASKS[stored]
