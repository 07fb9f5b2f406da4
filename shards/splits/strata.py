"""Strata of pictures by label: how many each split gets, and which a fraction keeps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_STREAM = 1
"""Third entry of the seed: the streams of `split_stratified` have none, that of the groups has 2."""


def list_strata(labels: Iterable[Any]) -> list[tuple[Any, list[int]]]:
    """Return each label, in ascending order, with the positions where it occurs.

    >>> list_strata(["b", "a", "b"])
    [('a', [1]), ('b', [0, 2])]
    """
    members: defaultdict[Any, list[int]] = defaultdict(list)
    for position, label in enumerate(labels):
        members[label].append(position)
    return sorted(members.items())


def share_out(count: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Return how many of `count` pictures of a class each split gets; train gets the rest.

    A class of two or more keeps at least one in train and gives at least one to each split while there are enough.

    >>> share_out(25, {"val": 0.1, "test": 0.2})
    {'val': 2, 'test': 5}
    """
    taken: dict[str, int] = {}
    for name, share in shares.items():
        taken[name] = min(count - 1 - sum(taken.values()), max(1, round(share * count)))
    return taken


def choose_fraction(labels: Sequence[tuple[Any, ...]], fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return bool[n]: a random fraction of the pictures of each class, at least one of each.

    Every picture has a rank in (0, 1) within its labels; ranks below `fraction` are chosen. With the same seed, a
    smaller fraction is therefore a subset of a larger one.

    >>> choose_fraction([("a",)] * 10 + [("b",)], 0.2, seed=0).sum()
    np.int64(3)
    """
    ranks = _rank_in_strata(labels, seed)
    chosen = ranks < fraction
    held = {name for row in np.flatnonzero(chosen).tolist() for name in labels[row]}
    for row in np.argsort(ranks, kind="stable").tolist() if len(held) < len(set().union(*labels)) else ():
        chosen[row] |= not held.issuperset(labels[row])
        held.update(labels[row] if chosen[row] else ())
    return chosen


def _rank_in_strata(labels: Sequence[tuple[Any, ...]], seed: int) -> npt.NDArray[np.float64]:
    ranks = np.zeros(len(labels))
    several = any(len(names) > 1 for names in labels)
    for number, (_, members) in enumerate(list_strata(labels)):
        rng = np.random.default_rng((seed, number, _STREAM))
        # Half a step rounds to the nearest count; with many small sets of labels, all would round the same way.
        step = rng.random() if several else 0.5
        ranks[members] = (rng.permutation(len(members)) + step) / len(members)
    return ranks
