"""Random streams of one sample: generators for each purpose and library, seeded by the sample's key alone.

A sample's draws do not depend on the rank, worker or thread that loads it, or on earlier samples.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np
import torch

from shards.order.purposes import Library, make_key

_WORD = 2**32 - 1


class SampleKey(NamedTuple):
    """Identifies one showing of one sample; ids and copies are below 2**32.

    copy: How many times a weighted order has already shown this sample in this epoch.
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

    torch uses 32 bits of a CPU generator's seed: in a run of millions of samples, two showings may share their draws by
    chance. That is harmless, but the other two generators practically exclude it.
    """
    state = _sequence(key, purpose + Library.TORCH).generate_state(1)
    return torch.Generator().manual_seed(int(state[0]))


def _sequence(key: SampleKey, purpose: int) -> np.random.SeedSequence:
    # The first showing has no copy number, so that runs from before copies existed keep their pixels. NumPy pads short
    # seeds with zeros to four words; beyond that, another length gives another stream.
    # SeedSequence.spawn would not keep libraries apart: child 1 of (a, b, c, d) is seeded like (a, b, c, d, 1), which
    # is another copy of the sample.
    words = make_key(purpose, key.seed, key.epoch, key.sample_id, *((key.copy,) if key.copy else ()))
    # NumPy uses an array of words directly; converting a list would take a third of the total time.
    return np.random.SeedSequence(np.array(words, dtype=np.uint32) if key.seed <= _WORD else words)
