"""Random streams of one sample: a generator for each purpose and each library, from the sample's key alone.

A sample gets the same draws whatever rank, worker or thread loads it, and whatever was loaded before it.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np
import torch

from shards.order.purposes import Library, make_key

_WORD = 2**32 - 1


class SampleKey(NamedTuple):
    """Which showing of which sample; ids and copies are below 2**32.

    copy: how many times a weighted order has shown this sample before in this epoch.
    """

    seed: int
    epoch: int
    sample_id: int
    copy: int = 0


def make_numpy_rng(key: SampleKey, purpose: int) -> np.random.Generator:
    """Return numpy's generator of a sample for one purpose, at the start of its stream.

    >>> from shards.order.purposes import Purpose
    >>> first, again = (make_numpy_rng(SampleKey(0, 1, 7), Purpose.CROP) for _ in range(2))
    >>> first.random() == again.random()
    True
    """
    return np.random.default_rng(_sequence(key, purpose + Library.NUMPY))


def make_python_rng(key: SampleKey, purpose: int) -> random.Random:
    """Return the standard library's generator of a sample for one purpose."""
    state = _sequence(key, purpose + Library.PYTHON).generate_state(2, np.uint64)
    return random.Random(int(state[0]) << 64 | int(state[1]))


def make_torch_rng(key: SampleKey, purpose: int) -> torch.Generator:
    """Return torch's CPU generator of a sample for one purpose.

    torch keeps 32 bits of a CPU generator's seed: in a run of millions of samples some two showings share their
    draws by chance, as harmless as two equal throws of dice, but not impossible as with the other two.
    """
    state = _sequence(key, purpose + Library.TORCH).generate_state(1)
    return torch.Generator().manual_seed(int(state[0]))


def _sequence(key: SampleKey, purpose: int) -> np.random.SeedSequence:
    # A first showing goes without its copy, so that runs from before copies existed keep their pixels. Numpy pads
    # short seeds with zeros up to four words: from there on another length is another stream.
    # SeedSequence.spawn would not keep libraries apart: child 1 of (a, b, c, d) is seeded like (a, b, c, d, 1), another
    # copy of the sample.
    words = make_key(purpose, key.seed, key.epoch, key.sample_id, *((key.copy,) if key.copy else ()))
    # Numpy takes the words of an array as they are, and else looks at them one by one, for a third of the whole cost.
    return np.random.SeedSequence(np.array(words, dtype=np.uint32) if key.seed <= _WORD else words)
