"""Labels that are likely mistakes: what a model that never saw a picture is confident about, against its label."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def find_label_issues(labels: Ints, probabilities: Floats) -> Ints:
    """Return int64[n], positions of likely label mistakes, the surest first.

    A sample is one where some other class is confident: its probability reaches the mean probability of that class over
    the samples that bear its label, and it is the largest of those that do. Where the model gives the label itself
    nevertheless, there is no mistake to look for: a rare class has a low mean, which samples of a frequent one reach by
    chance. Sure is a low probability of the own label against the other class's.

    Args:
        labels: int64[N], as given.
        probabilities: float64[N, K] of a model that was not fitted to these samples; to what it was fitted it agrees.

    Source: Northcutt et al. 2021, Confident Learning, the off-diagonal of the confident joint (section 3.1) without
    those whose label is predicted, as its authors' cleanlab leaves them out, ordered by the normalised margin.

    >>> confident = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.05, 0.95]]
    >>> find_label_issues(np.array([0, 0, 1, 1, 0]), np.array(confident)).tolist()
    [4]
    """
    rows = np.arange(len(labels))
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    own = probabilities[rows, labels]
    sums = np.bincount(labels, weights=own, minlength=probabilities.shape[1])
    # No label, no threshold: such a class is never confident.
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
    """Return int64[n, 2], sample and class of labels that are likely mistakes, the surest first.

    Each class is a question of its own, answered as `find_label_issues` does for yes and no.

    Args:
        labels: int64[N, K] of 0 and 1, as given.
        probabilities: float64[N, K] of a model that was not fitted to these samples, of each class for itself.

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
