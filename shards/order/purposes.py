"""What each random stream of a run is for: a number of its own, at one fixed place of the key that seeds the stream.

A key is (seed, epoch, purpose, ...). NumPy's SeedSequence pads short keys with zeros to four words, so that keys are
kept apart by their purpose and by what follows it, never by their length: what follows is of one length for each
purpose, or longer than four words in all.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

VERSION: Final = 2
"""Of which samples and pictures a seed gives. Runs keep in their snapshots which one they began with.

1: the part of a class that stream.fraction shows was drawn with (seed, 6, number of the class), which is the key of
another stream in epoch 6: of the deal of shards for class 0, of the draws of a balanced or weighted order for class 7.
Class weights counted all samples where a part is shown; mixup and cutmix paired neighbours however shards are sorted;
the policies light and strong moved every picture between pixels, onto black.
"""
BEFORE_VERSIONS: Final = 1
"""What a snapshot means that names none."""


class Purpose(IntEnum):
    """Numbers are for good: another one is another order, or other pixels, for the same seed. New ones are below 16."""

    DEAL = 0
    """Of shards to lanes."""
    WINDOW = 1
    """The order inside a window of a lane; then its number and the lane's."""
    OPERATIONS = 2
    """Of the model's input; then the sample's id, and its copy above 0."""
    LANE = 3
    """The order of the shards of a lane; then its number."""
    CUT = 4
    """Which samples of a shard that two lanes share each gets; then the shard."""
    CROP = 5
    """As OPERATIONS."""
    FRACTION = 6
    """Which samples of a class take part; of epoch 0, since they are the same in all; then the number of the class."""
    DRAWS = 7
    """How often an epoch shows each sample."""
    ERASE = 8
    """As OPERATIONS."""
    BEFORE = 9
    """Operations on the decoded picture; as OPERATIONS."""
    MIX = 10
    """Shares and partners of mixed pictures; then the step of the epoch."""


class Library(IntEnum):
    """Whose generator a stream of a sample seeds; added to the purpose."""

    NUMPY = 0
    PYTHON = 16
    TORCH = 32


def make_key(purpose: int, seed: int, epoch: int, *rest: int) -> tuple[int, ...]:
    """Return what seeds a stream of NumPy.

    >>> make_key(Purpose.LANE, 5, 2, 7)
    (5, 2, 3, 7)
    """
    return (seed, epoch, int(purpose), *rest)


def make_dropout_key(seed: int, step: int, rank: int) -> tuple[int, int, int]:
    """Return what seeds torch's own generator for a step of a rank; the rank stands where others have their purpose.

    Of the other streams those of Library.TORCH seed such a generator, too, from 32 to 47 in that place; ranks leave it
    out. Samples and pictures are never drawn from it.

    >>> make_dropout_key(5, 2, 1), make_dropout_key(5, 2, 32)
    ((5, 2, 1), (5, 2, 48))
    """
    return seed, step, rank if rank < Library.TORCH else rank + len(range(Library.PYTHON, Library.TORCH))
