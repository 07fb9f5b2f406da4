"""Run a bundle's model on one split of a dataset, with features, in one pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shards.cli.progress import Progress
from shards.dataset.dataset import Dataset
from shards.dataset.read import SampleReader
from shards.dataset.split import Split
from trainer.contract.bundle import Bundle
from trainer.contract.model.features import FeatureTap, WithFeatures
from trainer.contract.model.model import Classifier
from trainer.decide.seen import Part, Seen
from trainer.evaluate.rows import evaluate_split
from trainer.ranks.ranks import Ranks

REFERENCE_SAMPLES = 20_000
"""Approximate number of pictures of train for class means and covariance; more change little but take longer."""


@dataclass(frozen=True)
class Viewer:
    """A bundle's model with a dataset of its classes; workers: decoding threads."""

    bundle: Bundle
    dataset: Dataset
    ranks: Ranks
    workers: int


def see_part(
    viewer: Viewer, part: str, with_features: bool, most: int | None = None, with_groups: bool = False
) -> Seen:
    """Return the model's outputs for a split.

    Args:
        viewer: The model and dataset.
        part: Name of the split.
        with_features: Keep the head's input; otherwise features are float32[N, 0].
        with_groups: Read the groups of pictures.
        most: Stop after the shard that reaches this number of pictures; None: all.

    Raises:
        UsageError: The split does not exist.
    """
    bundle, split = viewer.bundle, viewer.dataset.split(part)
    if most is not None:
        split = take_shards(split, most)
    tap = FeatureTap(bundle.model)
    # Evaluation only calls the model.
    model = cast(Classifier, WithFeatures(bundle.model, tap)) if with_features else bundle.model
    progress = Progress(f"reading {part}", split.num_samples)
    try:
        rows = evaluate_split(model, bundle.page.preprocess, split, viewer.ranks, viewer.workers, progress.show)
    finally:
        progress.close()
        tap.close()
    logits, features = np.split(rows.logits, [len(bundle.page.classes)], axis=1)
    groups = _read_groups(split, rows.ids) if with_groups else None
    dataset = viewer.dataset.fingerprint()
    return Seen(rows.task, dataset, cast(Part, part), rows.ids, rows.labels, logits, features, groups)


def _read_groups(split: Split, ids: npt.NDArray[np.int64]) -> pa.Array:
    """Return the group of each sample, in order of the ids."""
    with SampleReader(split) as reader:
        index = reader.read_columns(["sample_id", "group"])
    index = index.take(pc.sort_indices(index["sample_id"])).combine_chunks()
    assert np.array_equal(index["sample_id"].to_numpy(), ids)
    return index["group"].cast(pa.string()).combine_chunks()


def take_shards(split: Split, most: int) -> Split:
    """Return the first shards of a split with `most` samples, or all; every shard is a random mix of classes."""
    enough = int(np.searchsorted(np.cumsum(split.counts), most)) + 1
    return replace(split, table=split.table.slice(0, enough))
