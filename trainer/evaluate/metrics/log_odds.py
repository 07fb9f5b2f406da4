"""The log-odds of classes, for ranking samples: they still differ when probabilities round to 1."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from trainer.contract.task import Task
from trainer.evaluate.metrics.blocks import cut_rows

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_LEAST = -1e300
"""Replaces minus infinity, which cannot be subtracted from itself and which scikit-learn's curves reject."""


class LogOdds:
    """log(p / (1 - p)) of each class's probability from logits float32[N, K], a few classes at a time.

    With several labels they are the logits. With one label, that of class k is
    z_k - log(sum over j != k of exp(z_j)), which softmax rounds to a probability of 1 for margins above 37.

    >>> from trainer.contract.task import ONE_LABEL
    >>> LogOdds(ONE_LABEL, np.array([[0, 50], [0, 60]], np.float32)).column(1).tolist()
    [50.0, 60.0]
    """

    def __init__(self, task: Task, logits: npt.NDArray[np.float32]) -> None:
        self._logits = logits
        self._softmax = _Softmax(logits) if task.is_exclusive and logits.shape[1] > 1 else None

    def column(self, number: int) -> Floats:
        """Return the log-odds of one class, float64[N]."""
        return self._take(slice(number, number + 1))[0]

    def columns(self) -> Iterator[Floats]:
        """Yield `column` of each class; only a few classes are in memory at a time."""
        for chosen in cut_rows(self._logits.shape[1], len(self._logits)):
            yield from self._take(chosen)

    def _take(self, chosen: slice) -> Floats:
        """Return the log-odds of some classes, float64[k, N]."""
        own = np.ascontiguousarray(self._logits[:, chosen].T, dtype=np.float64)
        return own if self._softmax is None else self._softmax.subtract_rest(own, chosen)


class _Softmax:
    """For each sample: the largest logit, its class, and the sums of exponentials without it."""

    def __init__(self, logits: npt.NDArray[np.float32]) -> None:
        number = len(logits)
        self._top: Ints = logits.argmax(axis=1)
        self._largest = logits[np.arange(number), self._top].astype(np.float64)
        self._others = np.empty(number)
        """Sum over the other classes of exp(z - the largest logit), 0 to K - 1."""
        self._rest = np.empty(number)
        """Logarithm of the sum over the other classes of exp(z): unlike the sum above, it does not underflow."""
        for rows in cut_rows(*logits.shape):
            block, places = logits[rows].astype(np.float64), np.arange(rows.stop - rows.start)
            block[places, self._top[rows]] = -np.inf
            second = np.maximum(block.max(axis=1), _LEAST)
            sums = np.exp(np.subtract(block, second[:, None], out=block), out=block).sum(axis=1)
            with np.errstate(divide="ignore"):
                self._rest[rows] = second + np.log(sums)
            self._others[rows] = sums * np.exp(second - self._largest[rows])

    def subtract_rest(self, own: Floats, chosen: slice) -> Floats:
        """Return the log-odds of classes with logits float64[k, N], in place."""
        own -= self._largest
        below = np.exp(own)  # relative to the largest logit, which counts as 1
        np.log1p(np.maximum(np.subtract(self._others, below, out=below), 0.0, out=below), out=below)
        own -= below
        samples = np.flatnonzero((self._top >= chosen.start) & (self._top < chosen.stop))
        own[self._top[samples] - chosen.start, samples] = self._largest[samples] - self._rest[samples]
        return _round_bits(np.clip(own, _LEAST, -_LEAST, out=own))


def _round_bits(numbers: Floats) -> Floats:
    """Round float64 to 40 of its 52 bits, in place, and return it.

    Samples whose other logits are a permutation have equal log-odds up to the last bits, which depend on the order of
    summation; rounding keeps them tied. float32 has 24 bits, so no information of the logits is lost.
    """
    bits = numbers.view(np.int64)
    bits += 1 << 11
    bits &= -(1 << 12)
    return numbers
