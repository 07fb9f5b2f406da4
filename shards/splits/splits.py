"""Which picture goes into which split: as given, at random by class, by order, or resplit."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from shards.errors import UsageError
from shards.splits.components import Deal, deal_components, join_components
from shards.splits.strata import choose_fraction, list_strata, share_out

SKEW_NOTED = 0.02
"""Deviation of a class's share in a split above which a note is written."""
ONLY_TEST = {"test": 1.0}
"""Shares that leave nothing to train on, for pictures to evaluate a trained model on."""
Labels = Sequence[tuple[str, ...]]


class SplitOptions(BaseModel):
    """How pictures without a split get one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0)
    """Seed of the split, of the fraction, and of the order inside the shards."""
    shares: dict[str, float] = {"val": 0.1, "test": 0.1}
    """Share of val and of test in each class, (0, 1); the rest is train. {"test": 1} alone puts everything into test.
    """
    every: int | None = Field(default=None, ge=2)
    """Every Nth picture of a class goes to test, without randomness; replaces `shares`."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of each class of train that is used; with the same seed, a smaller fraction is a subset of a larger one."""
    merge: tuple[str, ...] = ()
    """Given splits that are pooled and split again by `shares`; other splits stay."""

    @model_validator(mode="before")
    @classmethod
    def _every_has_no_shares(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("every") is not None:
            return {"shares": {}} | values
        return values

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not self.is_only_test:
            _check_shares(self.shares)
        if self.every and self.shares:
            raise ValueError("every Nth picture and shares exclude each other; give --every or --split")
        if self.merge:
            _check_merge(self.merge)
            if self.every:
                raise ValueError("merged splits are split by shares; give --split instead of --every")
        return self

    @property
    def is_only_test(self) -> bool:
        """Whether all pictures without a split go to test."""
        return self.shares == ONLY_TEST


@dataclass(frozen=True)
class Assignment:
    """A split for each picture, `` for pictures that the fraction leaves out.

    notes: what the user should know, a sentence each.
    skew: largest deviation of a class's share in a split from the requested share, 0..1, beyond mere rounding.
    """

    splits: list[str]
    notes: list[str] = field(default_factory=list)
    skew: float = 0.0


def parse_shares(text: str) -> dict[str, float]:
    """Return split shares from `val=0.1,test=0.1`; `none` gives no shares (all train), `test=1` makes all test.

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
        if {name: share} == ONLY_TEST and part == text:
            return dict(ONLY_TEST)
        if name not in ("val", "test") or not 0 < share < 1:
            raise UsageError(
                f"--split is of the form val=0.1,test=0.1 with shares in (0, 1), got '{part}' in '{text}'; none "
                "puts all into train, test=1 all into test"
            )
        shares[name] = share
    if sum(shares.values()) >= 1:
        raise UsageError(f"--split {text} leaves nothing to train on: the shares sum to {sum(shares.values()):g}")
    return shares


def parse_merge(text: str) -> tuple[str, ...]:
    """Return the splits to merge from `train,val`.

    >>> parse_merge("train,val")
    ('train', 'val')

    Raises:
        UsageError: Fewer than two of train, val and test, or train is not among them.
    """
    names = tuple(part.strip() for part in text.split(","))
    try:
        _check_merge(names)
    except ValueError as err:
        raise UsageError(f"--merge-and-resplit: {err}, got '{text}'") from err
    return names


def _check_shares(shares: Mapping[str, float]) -> None:
    wrong = [f"{name}={share:g}" for name, share in shares.items() if name not in ("val", "test") or not 0 < share < 1]
    if wrong:
        raise ValueError(f"only val and test have shares, in (0, 1), not {wrong[0]}")
    if sum(shares.values()) >= 1:
        raise ValueError(f"the shares sum to {sum(shares.values()):g} and leave nothing to train on")


def _check_merge(names: tuple[str, ...]) -> None:
    if len(names) < 2 or len(set(names)) < len(names) or not set(names) <= {"train", "val", "test"}:
        raise ValueError("name two or three of train, val and test, each once")
    if "train" not in names:
        raise ValueError("without train among them, nothing would be left to train on; name it too")


def split_stratified(labels: Sequence[str], shares: Mapping[str, float], seed: int) -> list[str]:
    """Return a split name for each sample; each split gets its share of every class, rounded.

    A class of two or more samples keeps at least one in train and puts at least one into each split while there are
    enough.

    >>> split_stratified(["a"] * 10 + ["b"] * 10, {"val": 0.2}, seed=0).count("val")
    4
    """
    splits = ["train"] * len(labels)
    for number, (_, members) in enumerate(list_strata(labels)):
        # (seed, number), not seed + number: sums of neighbouring seeds would repeat each other's draws.
        order = np.random.default_rng((seed, number)).permutation(members)
        taken = 0
        for name, count in share_out(len(order), shares).items():
            for position in order[taken : taken + count]:
                splits[position] = name
            taken += count
    return splits


def assign_splits(
    given: Sequence[str | None],
    labels: Labels,
    groups: Sequence[str],
    ties: Sequence[tuple[int, int]],
    options: SplitOptions,
) -> Assignment:
    """Return a split for every picture; a given split stays unless it is merged.

    A picture without a split joins the given split of its group, or of pictures it is tied to.

    Args:
        given: Split of each picture, None if it has none.
        labels: Class names of each picture.
        groups: Pictures of a group stay together; '' for none.
        ties: Pairs of positions of equal pictures, which also stay together.

    Raises:
        UsageError: Options that do not fit these pictures.
    """
    if options.merge:
        _refuse_merge(given, options)
    splits = [name if name is not None and name not in options.merge else "" for name in given]
    if options.is_only_test:
        return Assignment([split or "test" for split in splits])
    if options.every:
        dealt = _deal_by_order(splits, labels, groups, options.every)
    else:
        dealt = _deal_at_random(splits, labels, join_components(groups, ties), options)
    if options.fraction < 1:
        return _thin_train(dealt, labels, options)
    return dealt


def _refuse_merge(given: Sequence[str | None], options: SplitOptions) -> None:
    there, merge = set(given) - {None}, ",".join(options.merge)
    if "train" not in there:  # val or test may be missing: they are then taken from train
        found = ", ".join(sorted(name for name in there if name)) or "none"
        raise UsageError(
            f"--merge-and-resplit {merge}: the source gives no split 'train' (it gives {found}); use only --split "
            "for such a source"
        )
    unshared = [name for name in options.merge if name != "train" and name not in options.shares]
    if unshared and not options.is_only_test:
        raise UsageError(
            f"--merge-and-resplit {merge}: --split has no share for {unshared[0]}, which would stay empty; add "
            f"{unshared[0]}=0.1 to it"
        )


def _deal_by_order(splits: list[str], labels: Labels, groups: Sequence[str], every: int) -> Assignment:
    """Fill the empty entries of `splits`; pictures with several labels count within their set of labels."""
    free = [row for row, split in enumerate(splits) if not split]
    if not free:
        return Assignment(splits, ["the source gives every picture a split, so --every changed nothing"])
    torn = [group for group, count in Counter(groups[row] for row in free).items() if group and count > 1]
    if torn:
        raise UsageError(
            f"--every goes by order and would split groups ('{torn[0]}' has several pictures); use --split"
        )
    for _, members in list_strata(labels[row] for row in free):
        for place, member in enumerate(members, start=1):
            splits[free[member]] = "train" if place % every else "test"
    return Assignment(splits)


def _deal_at_random(
    splits: list[str],
    labels: Labels,
    components: npt.NDArray[np.int64],
    options: SplitOptions,
) -> Assignment:
    if not options.merge:
        _follow(splits, components)
    free = [row for row, split in enumerate(splits) if not split]
    if not free:
        return Assignment(splits)
    mine = [labels[row] for row in free]
    shares = {name: share for name, share in options.shares.items() if not options.merge or name in options.merge}
    parts = np.unique(components[free], return_inverse=True)[1].reshape(-1)
    together = len(free) > int(parts.max()) + 1
    if together or any(len(names) > 1 for names in mine):
        deal = deal_components(mine, parts, shares, options.seed)
        dealt, (skew, notes) = deal.splits, _measure_skew(deal, shares, together)
    else:
        names = [label for (label,) in (names or ("",) for names in mine)]
        dealt, skew, notes = split_stratified(names, shares, options.seed), 0.0, []
    for row, split in zip(free, dealt, strict=True):
        splits[row] = split
    return Assignment(splits, notes, skew)


def _follow(splits: list[str], components: npt.NDArray[np.int64]) -> None:
    """Assign pictures without a split to the split of most of their component; components already split stay so."""
    held: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for component, split in zip(components.tolist(), splits, strict=True):
        if split:
            held[component][split] += 1
    if not held:
        return
    for row, component in enumerate(components.tolist()):
        if not splits[row] and component in held:
            splits[row] = min(held[component].items(), key=lambda item: (-item[1], item[0]))[0]


def _measure_skew(deal: Deal, shares: Mapping[str, float], together: bool) -> tuple[float, list[str]]:
    """Return the largest deviation from a split that ignores components, and a note if it is large."""
    totals = deal.counts.sum(axis=0)
    off = np.abs(deal.counts - deal.targets) / totals
    off = np.roll(off, -1, axis=0)  # train comes last: of equal deviations, one in an evaluated split is reported
    place, column = np.unravel_index(np.argmax(off), off.shape)
    row = (int(place) + 1) % len(off)
    skew = float(off[place, column])
    if skew <= SKEW_NOTED:
        return skew, []
    name, label, got = deal.names[row], deal.classes[column] or "the unlabelled", deal.counts[row, column]
    cause, part = "groups" if together else "sets of labels", _percent(got / totals[column])
    fact = (
        f"allow only {part} of {label} in {name}"
        if got < deal.targets[row, column]
        else f"put {part} of {label} into {name}"
    )
    return skew, [f"the {cause} {fact} where {_percent(shares.get(name, 1 - sum(shares.values())))} were requested"]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def _thin_train(dealt: Assignment, labels: Labels, options: SplitOptions) -> Assignment:
    """Keep only a fraction of train; val and test stay whole, so that points of a learning curve are comparable."""
    train = [row for row, split in enumerate(dealt.splits) if split == "train"]
    chosen = choose_fraction([labels[row] for row in train], options.fraction, options.seed)
    splits = list(dealt.splits)
    for row, stays in zip(train, chosen.tolist(), strict=True):
        splits[row] = "train" if stays else ""
    note = f"train has {int(chosen.sum()):,} of its {len(train):,} pictures (--fraction {options.fraction:g})"
    return Assignment(splits, [*dealt.notes, note], dealt.skew)
