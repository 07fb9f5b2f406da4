"""Fit detectors of distant features: Gaussians with one covariance, or the residual outside main directions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import LinAlgError, cholesky, eigh, solve_triangular
from sklearn.covariance import ledoit_wolf_shrinkage, shrunk_covariance

from shards.errors import ShardError
from trainer.contract.decision.ood import Detector

_LEAST_SHRINKAGE = 1e-4
"""Added variance that keeps the matrix invertible if features are never active in the fit."""
_LEAST_VARIANCE = 1e-12
_SAME = "the features of these pictures do not vary; the model does not distinguish them"


_HELD = 0.98
"""Share of the variance that the main directions hold; chosen by measurement, see tests/bench/results."""


def fit_residual(points: npt.NDArray[np.float32]) -> Detector:
    """Return a detector for the component outside the main directions of points float32[N, D].

    Raises:
        ShardError: There are fewer than two points or features, or all points are equal.
    """
    if min(points.shape) < 2:
        raise ShardError(f"{len(points)} pictures of {points.shape[1]} features have no main directions; fit on more")
    exact = points.astype(np.float64)
    centre = exact.mean(axis=0)
    variances, directions = eigh(np.cov(exact - centre, rowvar=False))
    if not variances[-1] > _LEAST_VARIANCE:
        raise ShardError(_SAME)
    held = np.cumsum(variances[::-1].clip(0)) / variances.clip(0).sum()
    main = min(int(np.searchsorted(held, _HELD)) + 1, len(variances) - 1)
    outside = np.ascontiguousarray(directions[:, : len(variances) - main])
    tensors = (centre, outside, np.zeros((1, outside.shape[1])), np.zeros(0))
    return Detector(*(torch.from_numpy(tensor).float() for tensor in tensors))


def fit_gaussians(points: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Detector:
    """Return a detector with a Gaussian per class of points float32[N, D] in classes int64[N] that has points.

    Raises:
        ShardError: There are not more points than classes, or all points are equal.

    Source: Lee et al. 2018, eq. 1; shrinkage of Ledoit and Wolf 2004 (A Well-Conditioned Estimator for
    Large-Dimensional Covariance Matrices).
    """
    present, of = np.unique(labels, return_inverse=True)
    if len(points) <= len(present):
        raise ShardError(
            f"{len(points)} pictures of {len(present)} classes do not determine a covariance; fit on a larger split"
        )
    exact = points.astype(np.float64)
    means = np.stack([exact[of == number].mean(axis=0) for number in range(len(present))])
    centred = exact - means[of]
    covariance = centred.T @ centred / (len(points) - len(present))
    shrinkage = max(float(ledoit_wolf_shrinkage(centred, assume_centered=True)), _LEAST_SHRINKAGE)
    try:
        root = cholesky(shrunk_covariance(covariance, shrinkage), lower=True)
    except LinAlgError as err:
        raise ShardError(_SAME) from err
    whitening = solve_triangular(root, np.eye(len(root)), lower=True).T
    centre = exact.mean(axis=0)
    tensors = (centre, whitening, (means - centre) @ whitening, np.zeros(0))
    return Detector(*(torch.from_numpy(tensor).float() for tensor in tensors))
