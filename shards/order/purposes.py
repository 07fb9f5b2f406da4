"""What each random stream of a run is for: a number at a fixed place of the key that seeds the stream.

A key is (seed, epoch, purpose, ...). NumPy's SeedSequence pads short keys with zeros to four words, so keys must differ
in their purpose or in what follows, never only in length: what follows has the same length for all keys of a purpose,
or the key is longer than four words.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

VERSION: Final = 2
"""Version of which samples and pictures a seed gives. A run's snapshots record the version that it began with.

1: the samples of a class shown by stream.fraction were drawn with (seed, 6, class number), which in epoch 6 is the key
of another stream: the deal of shards for class 0, the draws of a balanced or weighted order for class 7. Class weights
counted all samples even if only a fraction was shown. Mixup and cutmix paired neighbours however shards were sorted.
The policies light and strong interpolated between pixels and filled with black.
"""
BEFORE_VERSIONS: Final = 1
"""Version of snapshots that record none."""


class Purpose(IntEnum):
    """The numbers must never change: another number gives another order, or other pixels, for the same seed. New ones
    must be below 16.
    """

    DEAL = 0
    """Dealing shards to lanes."""
    WINDOW = 1
    """The order inside a window of a lane; followed by the lane's number and the window's."""
    OPERATIONS = 2
    """Operations on the model's input; followed by the sample's id, and its copy if above 0."""
    LANE = 3
    """The order of a lane's shards; followed by its number."""
    CUT = 4
    """Which samples of a shard go to each of two lanes that share it; followed by the shard."""
    CROP = 5
    """Followed by the same as OPERATIONS."""
    FRACTION = 6
    """Which samples of a class are shown; of epoch 0, since they are the same in all; followed by the class number."""
    DRAWS = 7
    """How often an epoch shows each sample."""
    ERASE = 8
    """Followed by the same as OPERATIONS."""
    BEFORE = 9
    """Operations on the decoded picture; followed by the same as OPERATIONS."""
    MIX = 10
    """Shares and partners of mixed pictures; followed by the step of the epoch."""


class Library(IntEnum):
    """The library whose generator a sample's stream seeds; added to the purpose."""

    NUMPY = 0
    PYTHON = 16
    TORCH = 32


def make_key(purpose: int, seed: int, epoch: int, *rest: int) -> tuple[int, ...]:
    """Return the seed of a NumPy stream.

    >>> make_key(Purpose.LANE, 5, 2, 7)
    (5, 2, 3, 7)
    """
    return (seed, epoch, int(purpose), *rest)


def make_dropout_key(seed: int, step: int, rank: int) -> tuple[int, int, int]:
    """Return the seed of torch's global generator for a step of a rank; the rank takes the place of the purpose.

    Only streams of Library.TORCH seed such a generator too, with purposes 32 to 47; ranks skip these numbers. Samples
    and pictures are never drawn from this generator.

    >>> make_dropout_key(5, 2, 1), make_dropout_key(5, 2, 32)
    ((5, 2, 1), (5, 2, 48))
    """
    return seed, step, rank if rank < Library.TORCH else rank + len(range(Library.PYTHON, Library.TORCH))
