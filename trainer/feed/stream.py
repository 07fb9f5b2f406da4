"""The training batches of one rank: in the plan's order, each picture changed by the draws of its own sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from torch import Tensor

from shards.dataset import Split
from shards.draws import DrawOptions, count_draws
from shards.mixing import bound_clustering
from shards.plan import EpochPlan, OrderOptions, ShardSizes
from shards.read import Sample, SampleReader
from trainer.augment.policies import augment
from trainer.augment.seeding import SampleKey
from trainer.contract.preprocess import PreprocessSpec
from trainer.feed.device import feed_device
from trainer.feed.feed import Batch, Feed, Load
from trainer.feed.geometry import TrainGeometry
from trainer.feed.meter import Meter, Readings
from trainer.ranks import Ranks
from trainer.recipe import Recipe

Weigh = Callable[[Tensor, Tensor], Tensor]
"""Labels and weights of the dataset -> float32[n], weights in the loss."""


class TrainStream:
    """Epochs of training batches; what they hold does not depend on ranks and workers.

    weigh: makes the weights in the loss of those that the dataset gives its samples; None leaves them.
    """

    def __init__(
        self,
        split: Split,
        recipe: Recipe,
        spec: PreprocessSpec,
        ranks: Ranks,
        weigh: Weigh = lambda _, weights: weights,
    ) -> None:
        self._weigh = weigh
        self.workers = ranks.count_workers(recipe.workers)
        self._split = split
        self._recipe = recipe
        self._spec = spec
        self._ranks = ranks
        limit = recipe.limit_samples or split.num_samples
        self._fraction = min(recipe.stream.fraction, limit / split.num_samples)
        self._columns: dict[str, np.ndarray] = {}
        self._plan: tuple[int, EpochPlan] | None = None
        self._feed = Feed(
            split, (spec.channels, spec.size, spec.size), self.workers, pinned=ranks.device.type == "cuda"
        )
        self.samples_per_epoch = self.plan(0).num_samples
        self.clustering = bound_clustering(self.plan(0))
        """How often two samples of one shard meet in a batch at most, against a full shuffle."""

    def plan(self, epoch: int) -> EpochPlan:
        """Return the order of an epoch."""
        if self._plan is None or self._plan[0] != epoch:
            recipe, options = self._recipe, self._recipe.stream
            draws = DrawOptions(recipe.seed, options.order, self._fraction)
            repeats = count_draws(draws, epoch, lambda: self._column("label"), lambda: self._column("weight"))
            order = OrderOptions(
                recipe.seed, recipe.batch_size_global, options.lanes, options.window_bytes, options.redeal
            )
            self._plan = (
                epoch,
                EpochPlan(ShardSizes(self._split.counts, self._split.shard_bytes, repeats), order, epoch),
            )
        return self._plan[1]

    def iterate(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """Yield this rank's part of each step of an epoch, from `first_step` on, on the rank's device.

        Raises:
            ShardError: A sample that cannot be read or decoded.
            OSError: A remote shard that cannot be fetched.
        """
        slices = self.plan(epoch).slices(first_step, self._ranks.rank, self._ranks.num_ranks)
        batches = self._feed.iterate(slices, self._make_load(epoch))
        return feed_device(map(self._weigh_samples, batches), self._ranks.device)

    def _weigh_samples(self, batch: Batch) -> Batch:
        if self._weigh is None:
            return batch
        return replace(batch, weights=self._weigh(batch.labels, batch.weights))

    def read_meter(self) -> Readings:
        """Return what this rank read so far, and how long each stage took."""
        return self._feed.read_meter()

    def close(self) -> None:
        self._feed.close()

    def _make_load(self, epoch: int) -> Load:
        recipe = self._recipe
        geometry = TrainGeometry(self._spec, recipe.augment, fast=recipe.stream.decode == "fast")

        def load(sample: Sample, copy: int, meter: Meter) -> Tensor:
            key = SampleKey(recipe.seed, epoch, sample.sample_id, copy)
            with meter.timing("decode"):
                image = geometry.load(sample, key, meter)
            with meter.timing("augment"):
                return augment(image, recipe.augment.policy, key)

        return load

    def _column(self, name: str) -> np.ndarray:
        if name not in self._columns:
            with SampleReader(self._split) as reader:
                self._columns[name] = reader.read_column(name)
        return self._columns[name]
