"""The samples of a split that a recipe's epochs show, all or a fraction of each class, and which may be mixed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from shards.dataset.read import SampleReader
from shards.dataset.split import Split
from shards.errors import UsageError
from shards.order.draws import DrawOptions, Labels, count_classes
from shards.order.mixing import measure_sorting
from shards.order.purposes import BEFORE_VERSIONS, VERSION
from shards.storage.shown import show_location
from trainer.contract.task import make_task
from trainer.recipes.recipe import Recipe

_SORTED = 0.05
"""Threshold of `measure_sorting` for sorted shards; by chance it is at most about 0.02 from 70 samples on."""
_BY_COUNT = ("balanced", "effective")
"""Class weights that depend on the number of samples."""


def choose_draws(split: Split, recipe: Recipe, version: int = VERSION) -> DrawOptions:
    """Return the options for which samples an epoch shows and how often.

    version: Version of the random streams, see shards.order.purposes.
    """
    limit = recipe.limit_samples or split.num_samples
    fraction = min(recipe.stream.fraction, limit / split.num_samples)
    return DrawOptions(recipe.seed, recipe.stream.order, fraction, version)


def find_sorted_lanes(split: Split, recipe: Recipe, version: int = VERSION) -> int | None:
    """Return the number of lanes for pairing mixed pictures; None if neighbours are paired.

    Raises:
        UsageError: Pictures are mixed, but shards are sorted by class, with one lane that is not shuffled as a whole.
    """
    if not recipe.augment.mixes or version == BEFORE_VERSIONS:
        return None
    if measure_sorting(split.class_counts, split.counts) < _SORTED:
        return None
    lanes, size = recipe.stream.lanes, int(split.shard_bytes.sum())
    if lanes > 1:
        return lanes
    if size <= recipe.stream.window_bytes:
        return None
    option = "mixup" if recipe.augment.mixup else "cutmix"
    raise UsageError(
        f"augment.{option} pairs pictures of different lanes if shards are sorted by class, like those of "
        f"{show_location(split.location)}, but stream.lanes=1 has only one; set stream.lanes=8, set "
        f"stream.window_bytes={size}, which shuffles everything, or pack the pictures again, which mixes the shards"
    )


def read_labels(split: Split, read_column: Callable[[str], npt.NDArray[np.generic]]) -> Labels:
    """Return the label or labels of every sample."""
    return make_task(split.task).read_index(read_column)


def count_weighed(split: Split, recipe: Recipe, version: int = VERSION) -> tuple[npt.NDArray[np.int64], int]:
    """Return the number of samples of each class for class weights, int64[K], and in total: those used in training.

    Without class weights all samples are counted, without reading the index.

    Raises:
        ShardError: An index cannot be read.
        OSError: An index cannot be downloaded.
    """
    draws = choose_draws(split, recipe, version)
    if draws.fraction == 1 or recipe.loss.class_weights not in _BY_COUNT or version == BEFORE_VERSIONS:
        return split.class_counts.sum(axis=0), split.num_samples
    with SampleReader(split) as reader:
        return count_classes(draws, read_labels(split, reader.read_column), split.num_classes)
