"""The pictures that an endpoint is verified with: a bundle's probes, or some of a dataset's split."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.dataset.dataset import Dataset, open_dataset
from shards.dataset.read import SampleReader
from shards.dataset.split import Split
from shards.errors import UsageError
from shards.sources.location import name_split
from trainer.contract.bundle import read_bundle_probes

Data = str | os.PathLike[str] | Dataset | Split
"""A dataset or one of its splits: an open one, or its location, `data/cells` or `data/cells:val`."""
_PART = "test"
"""The split of a dataset that none is named of."""


@dataclass(frozen=True)
class Sampled:
    """A picture as the bytes of its file; `name` is for messages."""

    name: str
    data: bytes


def read_probe_pictures(folder: Path) -> list[Sampled]:
    """Return the pictures that travel with a bundle."""
    pictures, _, _ = read_bundle_probes(folder)
    return [Sampled(f"probe {number}", data) for number, data in enumerate(pictures)]


def draw_samples(data: Data, most: int, seed: int) -> list[Sampled]:
    """Return up to `most` pictures of a split in stored order; the same ones for the same seed.

    Raises:
        UsageError: There is no such dataset or split, or it is empty.
        ShardError: It is damaged.
        OSError: It cannot be read.
    """
    split = _open(data)
    if not len(split):
        raise UsageError(f"{split.where}:{split.name} has no pictures; name another split")
    numbers = np.random.default_rng(seed).choice(len(split), min(most, len(split)), replace=False)
    with SampleReader(split) as reader:
        samples = [reader.read_one(*split.find_sample(int(number))) for number in sorted(numbers)]
    return [Sampled(sample.source, sample.data) for sample in samples]


def _open(data: Data) -> Split:
    if isinstance(data, Split):
        return data
    if isinstance(data, Dataset):
        return data.split(_PART)
    location, part = name_split(os.fspath(data), default=_PART)
    return open_dataset(location).split(part)
