"""Pictures that must stay in one split, and a random split that keeps them together and classes in proportion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shards.splits.strata import share_out

Ints = npt.NDArray[np.int64]
Counts = list[tuple[int, int]]
"""Class number and count, for each class in a component."""

_STREAM = 2
"""Third entry of the seed: the streams of `split_stratified` have none, those of the fraction have 1."""
_ROUNDS, _TRIES = 10, 10_000
"""Rounds, and exchanges tried in each. Limits are counts, never times, so that every machine finds the same split."""
_LEAST = 1e-12
"""Smaller gains are only rounding errors."""


def join_components(groups: Sequence[str], ties: Sequence[tuple[int, int]]) -> Ints:
    """Return int64[n]: the number of each picture's component.

    Args:
        groups: Pictures of the same group are joined; the group '' joins nothing.
        ties: Pairs of positions to join.

    >>> join_components(["p1", "", "p1", "", ""], [(1, 2)]).tolist()
    [0, 0, 0, 1, 2]
    """
    from scipy.sparse import coo_array  # late import: opening a dataset needs this module, but not scipy
    from scipy.sparse.csgraph import connected_components

    first: dict[str, int] = {}
    heads = [first.setdefault(group, row) if group else row for row, group in enumerate(groups)]
    pairs = np.array(ties, dtype=np.int64).reshape(-1, 2)
    left = np.concatenate([np.arange(len(groups)), pairs[:, 0]])
    right = np.concatenate([np.array(heads, dtype=np.int64), pairs[:, 1]])
    graph = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(len(groups), len(groups)))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


@dataclass(frozen=True)
class Deal:
    """A split of components. splits: a split name for each picture. counts, targets: int64[splits, classes] in
    pictures.

    names: names of the rows, train first. classes: names of the columns.
    """

    splits: list[str]
    names: list[str]
    classes: list[str]
    counts: Ints
    targets: Ints


def deal_components(
    labels: Sequence[tuple[str, ...]], components: Ints, shares: Mapping[str, float], seed: int
) -> Deal:
    """Return a random split that keeps components whole and meets each class's shares as closely as possible.

    A picture with several labels counts for each of them, as in iterative stratification; strata of equal label sets
    would leave each of the many rare sets to chance. Every class has a picture in train.

    Source: Sechidis et al., On the Stratification of Multi-Label Data, 2011, for the order (hardest first); then moves
    and swaps while they bring the counts closer to the targets.
    """
    table = _Table(labels, components, shares)
    rng = np.random.default_rng((seed, 0, _STREAM))
    dealer = _Dealer(table, rng)
    dealer.place_all()
    dealer.fill_train()
    dealer.refine()
    names = [table.names[split] for split in np.array(dealer.split_of, dtype=np.int64)[components].tolist()]
    counts = np.array(dealer.counts, dtype=np.int64)
    width = len(table.classes)
    return Deal(names, table.names, table.classes, counts[:, :width], table.targets[:, :width])


class _Table:
    """Input of the split: class counts of every component, and target counts of each class for every split."""

    def __init__(self, labels: Sequence[tuple[str, ...]], components: Ints, shares: Mapping[str, float]) -> None:
        self.names = ["train", *shares]
        self.classes = sorted({name for names in labels for name in names or ("",)})
        number = {name: place for place, name in enumerate(self.classes)}
        rows = np.array([row for row, names in enumerate(labels) for _ in names or ("",)], dtype=np.int64)
        columns = np.array([number[name] for names in labels for name in names or ("",)], dtype=np.int64)
        if len(rows) > len(labels):  # an extra column counts pictures, so that splits keep their sizes too
            rows = np.concatenate([rows, np.arange(len(labels))])
            columns = np.concatenate([columns, np.full(len(labels), len(self.classes))])
        width = int(columns.max(initial=-1)) + 1
        self.totals = np.bincount(columns, minlength=width)
        keys, amounts = np.unique(components[rows] * width + columns, return_counts=True)
        self.members: list[Counts] = [[] for _ in range(int(components.max(initial=-1)) + 1)]
        for component, column, amount in zip(
            (keys // width).tolist(), (keys % width).tolist(), amounts.tolist(), strict=True
        ):
            self.members[component].append((column, amount))
        self.targets = _aim(self.totals, shares)


def _aim(totals: Ints, shares: Mapping[str, float]) -> Ints:
    """Return int64[splits, classes], train first: the counts of a split that ignores components."""
    taken = [share_out(total, shares) for total in totals.tolist()]
    parts = np.array([list(part.values()) for part in taken], dtype=np.int64).reshape(len(totals), len(shares)).T
    aimed: Ints = np.concatenate([(totals - parts.sum(axis=0))[None], parts])
    return aimed


class _Dealer:
    """Assigns components to splits and keeps `counts`. Its error is the squared deviation of every class's shares."""

    def __init__(self, table: _Table, rng: np.random.Generator) -> None:
        self._rng = rng
        self._members = table.members
        self._targets: list[list[int]] = table.targets.tolist()
        # Weighted by shares of the class, not pictures: otherwise frequent classes would outweigh rare ones.
        self._weights: list[float] = (1.0 / np.maximum(table.totals, 1) ** 2.0).tolist()
        self.counts: list[list[int]] = np.zeros_like(table.targets).tolist()
        self.split_of = [0] * len(table.members)

    def place_all(self) -> None:
        """Assign every component to a split, the hardest to place first."""
        weights = self._weights
        sizes = np.array([sum(n * n * weights[column] for column, n in member) for member in self._members])
        # Sizes within a factor of two count as equal: an exact order would be nearly the same for every seed.
        order = self._rng.permutation(len(sizes))
        order = order[np.argsort(-np.frexp(sizes[order])[1], kind="stable")]
        draws = self._rng.random(len(order)).tolist()
        for component, draw in zip(order.tolist(), draws, strict=True):
            split = self._choose(self._members[component], draw)
            self._put(component, split, 1)

    def _choose(self, member: Counts, draw: float) -> int:
        """Return a random split, weighted by remaining room, or the split of least error if the component fits nowhere.

        Always choosing the least error would put the largest patients into train and leave only small ones for test.
        """
        rooms = [self._room(member, split) for split in range(len(self.counts))]
        mark = draw * sum(rooms)
        for split, room in enumerate(rooms):
            mark -= room
            if room and mark <= 0:
                return split
        return min(range(len(self.counts)), key=lambda split: self._cost(member, split))

    def _room(self, member: Counts, split: int) -> float:
        counts, targets, weights = self.counts[split], self._targets[split], self._weights
        room = 0.0
        for column, n in member:
            free = targets[column] - counts[column]
            if free < n:
                return 0.0
            room += n * free * weights[column]
        return room

    def _cost(self, member: Counts, split: int) -> float:
        """Return how much the error grows if the component joins the split."""
        counts, targets, weights = self.counts[split], self._targets[split], self._weights
        return sum(n * (2 * (counts[column] - targets[column]) + n) * weights[column] for column, n in member)

    def _put(self, component: int, split: int, sign: int) -> None:
        counts = self.counts[split]
        for column, n in self._members[component]:
            counts[column] += sign * n
        self.split_of[component] = split

    def _move(self, component: int, split: int) -> None:
        self._put(component, self.split_of[component], -1)
        self._put(component, split, 1)

    def fill_train(self) -> None:
        """For each class missing from train, move its cheapest component there."""
        for column in [column for column, count in enumerate(self.counts[0]) if count == 0]:
            if self.counts[0][column]:  # arrived with another class
                continue
            holders = [row for row, member in enumerate(self._members) if any(column == held for held, _ in member)]
            self._move(min(holders, key=lambda row: self._cost(self._members[row], 0)), 0)

    def refine(self) -> None:
        """Move components, or swap two, as long as that lowers the error."""
        for _ in range(_ROUNDS):
            if self.counts == self._targets or not self._exchange():
                return

    def _exchange(self) -> int:
        """Try random moves and swaps; return how many were made."""
        size = len(self._members)
        tries = min(_TRIES, 4 * size * size)
        first, second = self._rng.integers(size, size=(2, tries)).tolist()
        splits = self._rng.integers(len(self.counts), size=tries).tolist()
        made = 0
        for one, other, split in zip(first, second, splits, strict=True):
            source, target = self.split_of[one], self.split_of[other]
            if source != target:
                if self._pays(_subtract(self._members[one], self._members[other]), source, target):
                    self._move(one, target)
                    self._move(other, source)
                    made += 1
            elif source != split and self._pays(self._members[one], source, split):
                self._move(one, split)
                made += 1
        return made

    def _pays(self, change: Counts, source: int, target: int) -> bool:
        """Return whether moving `change` between two splits lowers the error and leaves every class in train."""
        back = [(column, -n) for column, n in change]
        if self._cost(change, target) + self._cost(back, source) > -_LEAST:
            return False
        loss = change if source == 0 else back if target == 0 else []
        return all(n <= 0 or self.counts[0][column] > n for column, n in loss)


def _subtract(left: Counts, right: Counts) -> Counts:
    change = dict(left)
    for column, n in right:
        change[column] = change.get(column, 0) - n
    return [(column, n) for column, n in change.items() if n]
