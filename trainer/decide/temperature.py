"""Fit the temperature that maximises the likelihood of a classifier's probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logsumexp, softmax

from shards.errors import ShardError

_WIDEST = 1e3
"""Search range of the temperature, as a factor of the logits' deviation in both directions."""


@dataclass(frozen=True)
class TemperatureFit:
    """temperature: None if every picture is predicted correctly, so that none is best; log losses in nats."""

    temperature: float | None
    log_loss_before: float
    log_loss_after: float


def fit_temperature(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> TemperatureFit:
    """Return the temperature with the smallest log loss of logits float32[N, K] against labels int64[N].

    Raises:
        ShardError: The logits carry no information about the labels, so that equal probabilities are best.

    Source: Guo et al. 2017 (On Calibration of Modern Neural Networks, section 4.2).
    """
    centred = logits.astype(np.float64) - logits.mean(axis=1, keepdims=True, dtype=np.float64)
    own = centred[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        shares = softmax(centred * inverse, axis=1)
        return float(np.einsum("nk,nk->n", shares, centred).mean() - own.mean())

    return _fit(centred, slope, lambda inverse: compute_log_loss(centred * inverse, own * inverse))


def fit_temperature_each(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> TemperatureFit:
    """Like `fit_temperature`, for sigmoids of each class against labels int64[N, K] of 0 and 1."""
    wide = logits.astype(np.float64)
    own = (wide * labels).mean()

    def slope(inverse: float) -> float:
        return float((expit(wide * inverse) * wide).mean() - own)

    return _fit(wide, slope, lambda inverse: float(np.logaddexp(0.0, wide * inverse).mean() - own * inverse))


def _fit(
    logits: npt.NDArray[np.float64], slope: Callable[[float], float], log_loss: Callable[[float], float]
) -> TemperatureFit:
    """Return the temperature where the slope of the log loss, a function of 1 / T, has its root.

    The loss is convex in 1 / T, so there is at most one.
    """
    spread = float(np.sqrt((logits**2).mean()))
    if not spread > 0 or slope(low := 1 / (spread * _WIDEST)) >= 0:
        raise ShardError(
            f"the logits carry no information about the labels of these {len(logits)} pictures; train "
            "the model, check that its classes are the dataset's, or use --no-temperature"
        )
    high = _WIDEST / spread
    before = log_loss(1.0)
    if slope(high) <= 0:
        return TemperatureFit(None, before, before)
    inverse = np.exp(brentq(lambda power: slope(np.exp(power)), np.log(low), np.log(high), xtol=1e-10))
    return TemperatureFit(float(1 / inverse), before, log_loss(inverse))


def compute_log_loss(logits: npt.NDArray[np.float64], own: npt.NDArray[np.float64]) -> float:
    """Return the mean log loss, nats, of logits float64[N, K]; own: float64[N], the logits of the true classes."""
    return float((logsumexp(logits, axis=1) - own).mean())
