"""Conformal sets: the classes that a picture may be of, including the true one with a guaranteed probability.

The guarantee is marginal: over pictures exchangeable with those of the fit, the set holds the true class with at least
the chosen probability. It does not hold for a single class or group of pictures, unless each class has a threshold of
its own, fitted to its own pictures (`class_samples`); then it holds for each class, whatever the class shares. It does
not hold for pictures from another source, and it is an average over fits: the coverage of one fit varies, more so with
fewer pictures (`bound_coverage`). A set may be empty: then no class conforms, and the answer abstains. Filling it with
the most probable class would keep the guarantee, but hide that no class conforms.

Source: Vovk, Gammerman, Shafer 2005 (Algorithmic Learning in a Random World); Angelopoulos and Bates 2021 (A Gentle
Introduction to Conformal Prediction, section 1). Scores: lac of Sadinle, Lei, Wasserman 2019 (Least Ambiguous
Set-Valued Classifiers with Bounded Error Levels), aps of Romano, Sesia, Candes 2020 (Classification with Valid and
Adaptive Coverage), here without its random part, so that a picture gets the same answer each time; that makes the sets
larger. Other class shares at deployment: Podkopaev and Ramdas 2021 (Distribution-Free Uncertainty Quantification for
Classification Under Label Shift, section 3). Sets by class, and the distribution of one fit's coverage: Vovk 2012
(Conditional Validity of Inductive Conformal Predictors).
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from shards.errors import ShardError

Floats = npt.NDArray[np.float64]
Kind = Literal["lac", "aps"]

_SLACK: Final = 1e-9
"""A recomputed score may differ in its last bits; within this tolerance the class still belongs to the set."""


class ConformalSets(BaseModel):
    """Which classes belong to a picture's set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: float = Field(gt=0, lt=1)
    """Probability with which the true class is in the set, over pictures like those of the fit."""
    score: Kind
    """lac: 1 - p(k); smallest sets on average. aps: sum of the probabilities down to that of k; larger sets where the
    model is uncertain, smaller ones where it is certain."""
    thresholds: list[float]
    """For each class: it belongs to the set if its score is at most this. All thresholds are equal unless class shares
    change or classes are fitted separately."""
    samples: int
    """Pictures that the thresholds were fitted to."""
    mean_size: float
    """Mean number of classes in the sets of these pictures."""
    class_samples: list[int] | None = None
    """Pictures of each class, if each threshold was fitted to its own class alone: the guarantee then holds for each
    class. None: it holds on average over all pictures."""

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_there(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Sets that are not by class keep their earlier stored form.
        return {name: value for name, value in handler(self).items() if value is not None}


def score_classes(probabilities: Floats, kind: Kind) -> Floats:
    """Return float64[N, K]: the nonconformity score of each class, from probabilities float64[N, K].

    >>> score_classes(np.array([[0.5, 0.25, 0.25]]), "aps").tolist()
    [[0.5, 0.75, 1.0]]
    """
    if kind == "lac":
        return 1 - probabilities
    order = np.argsort(-probabilities, axis=1, kind="stable")
    scores = np.empty_like(probabilities)
    np.put_along_axis(scores, order, np.cumsum(np.take_along_axis(probabilities, order, axis=1), axis=1), axis=1)
    return scores


def find_quantile(scores: Floats, level: float, weights: Floats | None = None, own_weight: float = 1.0) -> float:
    """Return the smallest of `scores` that a new score stays at or below with probability `level`.

    With equal weights it is the ceil((n + 1) * level)-th smallest of n.

    Args:
        scores: float64[n], exchangeable with the new one up to the weights.
        level: 0..1.
        weights: float64[n], likelihood ratios of the new score's distribution to that of `scores`; None: all 1.
        own_weight: The weight of the new score.

    Raises:
        ShardError: Too few scores for the level; the message has the number needed.

    >>> find_quantile(np.arange(1.0, 20.0), 0.9)
    18.0
    """
    order = np.argsort(scores, kind="stable")
    weights = np.ones(len(scores)) if weights is None else weights
    reached = np.cumsum(weights[order])
    needed = level * (weights.sum() + own_weight)
    rank = int(np.searchsorted(reached, needed - _SLACK * max(needed, 1.0)))
    if rank >= len(scores):
        mean = float(weights.mean()) if len(scores) else 1.0
        enough = math.ceil(level / (1 - level) * own_weight / mean - _SLACK)
        raise ShardError(
            f"{len(scores)} pictures are too few for a level of {level:g}: {enough} are needed; "
            "lower the level, or fit on a larger split"
        )
    return float(scores[order[rank]])


def fit_sets(
    probabilities: Floats, labels: npt.NDArray[np.int64], level: float, kind: Kind, ratios: Floats | None
) -> ConformalSets:
    """Return the sets that hold the true class with probability `level`.

    Args:
        probabilities: float64[N, K], calibrated on other pictures than these.
        labels: int64[N].
        level: 0..1.
        kind: The score.
        ratios: float64[K], share of each class at deployment divided by its share here; None: equal shares.

    Raises:
        ShardError: Too few pictures for the level.
    """
    scores = score_classes(probabilities, kind)
    own = scores[np.arange(len(labels)), labels]
    num_classes = probabilities.shape[1]
    if ratios is None:
        thresholds = [find_quantile(own, level)] * num_classes
    else:
        thresholds = [find_quantile(own, level, ratios[labels], float(ratios[k])) for k in range(num_classes)]
    return _make_sets(scores, level, kind, thresholds)


def fit_sets_by_class(
    probabilities: Floats, labels: npt.NDArray[np.int64], level: float, kind: Kind, classes: list[str]
) -> ConformalSets:
    """Return the sets that hold the true class with probability `level` for the pictures of each class.

    Class shares do not matter: each threshold is fitted to the pictures of its class alone. Arguments as in `fit_sets`;
    classes: K names.

    Raises:
        ShardError: A class has too few pictures for the level; the message has the class and the number needed.
    """
    scores = score_classes(probabilities, kind)
    counts = np.bincount(labels, minlength=len(classes))
    needed = math.ceil(level / (1 - level) - _SLACK)
    few = [f"{name} {count:,}" for name, count in zip(classes, counts.tolist(), strict=True) if count < needed]
    if few:
        raise ShardError(
            f"sets by class need {needed:,} pictures of each class for a level of {level:g}, but the split has "
            f"{', '.join(few)}; lower the level, fit on a larger split, or leave out "
            "--conformal-by class"
        )
    thresholds = [find_quantile(scores[labels == number, number], level) for number in range(len(classes))]
    sets = _make_sets(scores, level, kind, thresholds)
    return sets.model_copy(update={"class_samples": counts.tolist()})


def _make_sets(scores: Floats, level: float, kind: Kind, thresholds: list[float]) -> ConformalSets:
    sizes = (scores <= np.array(thresholds) + _SLACK).sum(axis=1)
    return ConformalSets(
        level=level, score=kind, thresholds=thresholds, samples=len(scores), mean_size=float(sizes.mean())
    )


def bound_coverage(level: float, samples: int) -> tuple[float, float]:
    """Return the range of coverage on new pictures that 95 of 100 fits stay within, as (lower, upper).

    Exact for independent pictures without tied scores: coverage is distributed as Beta(k, n + 1 - k),
    k = ceil((n + 1) * level), for n pictures; ties increase coverage. Source: Vovk 2012, section 3.

    >>> [round(bound, 3) for bound in bound_coverage(0.9, 137)]
    [0.852, 0.949]
    """
    from scipy.stats import beta  # late: it takes seconds, and serving does not need it

    rank = math.ceil((samples + 1) * level - _SLACK * (samples + 1))
    low, high = beta.ppf((0.025, 0.975), rank, samples + 1 - rank)
    return float(low), float(high)


def find_members(probabilities: Floats, sets: ConformalSets) -> list[int]:
    """Return the classes in the set of one picture with probabilities float64[K], the most probable first."""
    scores = score_classes(probabilities[None], sets.score)[0]
    members = np.flatnonzero(scores <= np.array(sets.thresholds) + _SLACK)
    return [int(k) for k in sorted(members.tolist(), key=lambda k: -probabilities[k])]
