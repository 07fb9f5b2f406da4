"""Random splits, stratified by class, for folders that come without any."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from shards.errors import UsageError


def parse_shares(text: str) -> dict[str, float]:
    """Return split shares from `val=0.1,test=0.1`; `none` gives no shares (everything is train).

    >>> parse_shares("val=0.1,test=0.2")
    {'val': 0.1, 'test': 0.2}

    Raises:
        UsageError: Not of that form, a share outside (0, 1), or nothing left to train on.
    """
    if text == "none":
        return {}
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if name not in ("val", "test") or not 0 < share < 1:
            raise UsageError(f"--split is of the form val=0.1,test=0.1 with shares in (0, 1), got '{part}' in '{text}'")
        shares[name] = share
    if sum(shares.values()) >= 1:
        raise UsageError(f"--split {text} leaves nothing to train on: the shares sum to {sum(shares.values()):g}")
    return shares


def split_stratified(labels: Sequence[str], shares: Mapping[str, float], seed: int) -> list[str]:
    """Return a split name for each sample; of each class every split gets its share, rounded.

    A class with two or more samples keeps at least one in train and puts at least one into each split
    while there are enough.

    >>> split_stratified(["a"] * 10 + ["b"] * 10, {"val": 0.2}, seed=0).count("val")
    4
    """
    members: defaultdict[str, list[int]] = defaultdict(list)
    for position, label in enumerate(labels):
        members[label].append(position)
    splits = ["train"] * len(labels)
    for number, label in enumerate(sorted(members)):
        # (seed, number), not seed + number: sums of neighbouring seeds repeat each other's draws.
        order = np.random.default_rng((seed, number)).permutation(members[label])
        taken = 0
        for name, share in shares.items():
            left = len(order) - 1 - taken
            count = min(left, max(1, round(share * len(order))))
            for position in order[taken : taken + count]:
                splits[position] = name
            taken += count
    return splits
