"""Quality of probabilities: Brier score, calibration error."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

BINS = 15
"""Number of bins of equal width, as in Guo et al. 2017."""


def brier_scores(labels: Ints, probabilities: Floats) -> Floats:
    """Return float64[N], the squared distance of each sample's probabilities from its one-hot label.

    In 0..2; for two classes half of that, in 0..1, the usual form and scikit-learn's.

    Source: Brier 1950, sum over classes k of (p_k - y_k)^2.
    """
    own = probabilities[np.arange(len(labels)), labels]
    scores: Floats = np.einsum("nk,nk->n", probabilities, probabilities) - 2 * own + 1
    return scores / 2 if probabilities.shape[1] == 2 else scores


def bin_confidences(confidences: Floats) -> Ints:
    """Return int64[N], the bin of each sample's highest probability float64[N]; bins exclude their lower edge."""
    bins = np.ceil(confidences * BINS).astype(np.int64) - 1
    return bins.clip(0, BINS - 1)


def calibration_error(right: npt.NDArray[np.bool_], confidences: Floats, bins: Ints) -> float:
    """Return the expected calibration error of the most probable class, 0..1.

    Args:
        right: bool[N], whether the most probable class is the true one.
        confidences: float64[N], its probability.
        bins: int64[N], from `bin_confidences`.

    Source: Guo et al. 2017, equation 3: sum over bins of n_bin / N * |accuracy - mean confidence|.
    """
    gaps = np.bincount(bins, weights=right - confidences, minlength=BINS)
    return float(np.abs(gaps).sum() / len(right))
