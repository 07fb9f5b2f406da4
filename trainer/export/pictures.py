"""Real pictures for comparison and measurement, as encoded bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shards.dataset.dataset import Dataset, open_dataset
from shards.dataset.read import SampleReader
from shards.errors import UsageError
from shards.order.plan import sequential_refs
from shards.sources.folder import list_pictures
from shards.sources.location import is_dataset, is_uri, split_location
from shards.sources.model import MANIFEST_NAME
from trainer.contract.bundle import read_bundle_probes


@dataclass(frozen=True)
class Pictures:
    """Encoded pictures, and where they came from."""

    source: str
    data: list[bytes]


def read_pictures(where: str, samples: int) -> Pictures:
    """Return the first pictures of a dataset's split (`DATASET[:SPLIT]`, default val), or pictures of a folder.

    Raises:
        UsageError: The location is neither a dataset nor a folder of pictures.
        ShardError: The dataset is damaged.
        OSError: The location cannot be read.
    """
    location, part = split_location(where)
    if is_uri(location) or is_dataset(location):
        part = part or "val"
        return Pictures(f"{location}:{part}", _read_samples(open_dataset(location), part, samples))
    if part is not None:
        raise UsageError(f"{location} is not a dataset (it has no {MANIFEST_NAME}), so it has no split {part}")
    # Take every n-th of the sorted names; the first ones would all be of one class.
    paths = list_pictures([Path(where)])
    chosen = paths[:: max(1, len(paths) // samples)][:samples]
    return Pictures(where, [path.read_bytes() for path in chosen])


def _read_samples(dataset: Dataset, part: str, samples: int) -> list[bytes]:
    # Shards are stored in random order, so the first pictures are a fair sample.
    split = dataset.split(part)
    refs = sequential_refs(split.counts, 0, min(samples, split.num_samples))
    with SampleReader(split) as reader:
        return [reader.read_one(*place).data for place in zip(refs.shards.tolist(), refs.rows.tolist(), strict=True)]


def read_probe_pictures(bundle: Path) -> Pictures:
    """Return the pictures that travel with a bundle."""
    return Pictures("probes", read_bundle_probes(bundle)[0])
