"""Which samples go into which shard: a seeded permutation of each split, cut at a number of bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shards.errors import ShardError
from shards.sources.model import SPLITS, Source

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ShardPlan:
    """One shard to write: its samples as positions in the list of sources; ids are consecutive from first_id."""

    split: str
    name: str
    first_id: int
    members: Ints


@dataclass(frozen=True)
class Start:
    """Where numbering begins: 0 for a new dataset, after the last numbers for an update."""

    sample_id: int = 0
    shards: Mapping[str, int] | None = None
    update: int = 0


def plan_shards(
    sizes: Sequence[int], splits: Sequence[str], *, seed: int, shard_bytes: int, start: Start = Start()
) -> list[ShardPlan]:
    """Return the shards of every split; a picture with split '' is in none.

    Args:
        sizes: Stored bytes of each picture, as far as known before it is stored.
        splits: Split of each picture.
        seed: Seed of the permutation.
        shard_bytes: Most bytes of pictures in a shard; a larger picture gets a shard of its own.
        start: First numbers.
    """
    lengths, names = np.asarray(sizes, dtype=np.int64), np.asarray(splits)
    plan: list[ShardPlan] = []
    next_id = start.sample_id
    for number, split in enumerate(SPLITS):
        members = np.flatnonzero(names == split)
        key = (seed, number, start.update) if start.update else (seed, number)
        members = members[np.random.default_rng(key).permutation(len(members))]
        first = (start.shards or {}).get(split, 0)
        for position, part in enumerate(_cut(members, lengths, shard_bytes), start=first):
            plan.append(ShardPlan(split, f"{split}/{position:06d}.tar", next_id, part))
            next_id += len(part)
    return plan


def _cut(members: Ints, sizes: Ints, shard_bytes: int) -> Iterator[Ints]:
    begin, held = 0, 0
    for position, size in enumerate(sizes[members].tolist()):
        if position > begin and held + size > shard_bytes:
            yield members[begin:position]
            begin, held = position, 0
        held += size
    if begin < len(members):
        yield members[begin:]


def refuse_lost_classes(
    plan: list[ShardPlan], sources: Sequence[Source], classes: list[str], *, trains: bool = True
) -> None:
    """Raise a ShardError if a class has no picture in train, for example because all of them are unreadable.

    trains: Whether the dataset is for training, not only for evaluation.
    """
    if not plan:
        raise ShardError("no picture is left to pack: all are unreadable or left out; repair them")
    if not trains:
        return
    train = (member for shard in plan if shard.split == "train" for member in shard.members.tolist())
    left = {label for member in train for label in sources[member].labels}
    lost = [name for name in classes if name not in left]
    if lost:
        raise ShardError(
            f"class '{lost[0]}' has no readable picture in train, so it cannot be learnt; "
            "repair its pictures or remove its folder"
        )
