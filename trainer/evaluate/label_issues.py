"""Likely label mistakes: pictures whose label a model that was not trained on them confidently disagrees with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def find_label_issues(labels: Ints, probabilities: Floats) -> Ints:
    """Return int64[n], positions of likely label mistakes, the most certain first.

    A sample is one if the model is confident of another class: its probability reaches the mean probability of that
    class over the samples with that label, and is the largest of those that do. Samples whose label is predicted are
    excluded: a rare class has a low mean, which samples of a frequent class reach by chance. Samples are ordered by the
    probability of their own label minus that of the other class.

    Args:
        labels: int64[N], as given.
        probabilities: float64[N, K] of a model that was not fitted to these samples.

    Source: Northcutt et al. 2021, Confident Learning, the off-diagonal of the confident joint (section 3.1) without
    samples whose label is predicted, as in the authors' cleanlab, ordered by normalised margin.

    >>> confident = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.05, 0.95]]
    >>> find_label_issues(np.array([0, 0, 1, 1, 0]), np.array(confident)).tolist()
    [4]
    """
    rows = np.arange(len(labels))
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    own = probabilities[rows, labels]
    sums = np.bincount(labels, weights=own, minlength=probabilities.shape[1])
    # A class without labels has no threshold and is never confident.
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    guess = confident.argmax(axis=1)
    issues = np.flatnonzero(
        (confident[rows, guess] >= 0) & (guess != labels) & (probabilities.argmax(axis=1) != labels)
    )
    margin = own[issues] - probabilities[issues, guess[issues]]
    found: Ints = issues[np.argsort(margin, kind="stable")]
    return found


def find_multi_label_issues(labels: Ints, probabilities: Floats) -> Ints:
    """Return int64[n, 2], sample and class of likely label mistakes, the most certain first.

    Each class is a separate yes/no question, treated like two classes in `find_label_issues`.

    Args:
        labels: int64[N, K] of 0 and 1, as given.
        probabilities: float64[N, K] of a model that was not fitted to these samples, separately per class.

    >>> said = [[0.9, 0.2], [0.8, 0.1], [0.1, 0.9], [0.2, 0.95], [0.9, 0.8]]
    >>> find_multi_label_issues(np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1]]), np.array(said)).tolist()
    [[4, 0]]
    """
    found = [
        (abs(float(yes[sample]) - float(given[sample])), sample, number)
        for number, (given, yes) in enumerate(zip(labels.T, probabilities.T, strict=True))
        for sample in find_label_issues(given, np.stack([1 - yes, yes], axis=1)).tolist()
    ]
    found.sort(key=lambda issue: (-issue[0], *issue[1:]))
    return np.array([issue[1:] for issue in found], dtype=np.int64).reshape(-1, 2)
