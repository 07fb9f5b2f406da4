"""Which samples go into which shard: a seeded permutation of each split, cut where the bytes are full."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from shards.audit.check import Checked
from shards.errors import ShardError
from shards.sources.folder import SPLITS
from shards.splits import split_stratified


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be written: its samples in order; ids run on from first_id."""

    split: str
    name: str
    first_id: int
    samples: list[Checked]


def plan_shards(checked: list[Checked], *, shares: Mapping[str, float], seed: int, shard_bytes: int) -> list[ShardPlan]:
    """Return the shards of every split; `shares` split the samples where the sources have no splits of their own."""
    splits = [item.source.split for item in checked]
    if None in splits:
        labels = [item.source.label for item in checked]
        members = zip(split_stratified(labels, shares, seed), checked, strict=True)
    else:
        members = zip([split or "" for split in splits], checked, strict=True)
    by_split: defaultdict[str, list[Checked]] = defaultdict(list)
    for split, item in members:
        by_split[split].append(item)
    plan: list[ShardPlan] = []
    next_id = 0
    for number, split in enumerate(SPLITS):
        items = by_split[split]
        order = np.random.default_rng((seed, number)).permutation(len(items))
        for position, samples in enumerate(_cut([items[i] for i in order], shard_bytes)):
            plan.append(ShardPlan(split, f"{split}/{position:06d}.tar", next_id, samples))
            next_id += len(samples)
    return plan


def _cut(items: Iterable[Checked], shard_bytes: int) -> Iterable[list[Checked]]:
    samples: list[Checked] = []
    size = 0
    for item in items:
        if samples and size + item.length > shard_bytes:
            yield samples
            samples, size = [], 0
        samples.append(item)
        size += item.length
    if samples:
        yield samples


def refuse_lost_classes(plan: list[ShardPlan], classes: list[str]) -> None:
    """Raise a ShardError when a class has nothing in train; the unreadable pictures may be all that it had."""
    left = {item.source.label for shard in plan if shard.split == "train" for item in shard.samples}
    lost = [name for name in classes if name not in left]
    if lost:
        raise ShardError(
            f"class '{lost[0]}' has no readable picture in train, so it cannot be learnt; "
            "repair its pictures or remove its folder"
        )
