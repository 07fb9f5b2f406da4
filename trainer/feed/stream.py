"""The training batches of one rank: in the plan's order, each picture augmented by its own sample's draws."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shards.dataset.read import Sample, SampleReader
from shards.dataset.split import Split
from shards.order.draws import Labels, count_draws
from shards.order.mixing import bound_clustering
from shards.order.plan import EpochPlan, OrderOptions, Refs, ShardSizes, concat_refs, slice_rank
from shards.order.purposes import VERSION
from trainer.contract.preprocess import PreprocessSpec
from trainer.feed.augment.mix import MixPlan, Pairs, find_missing, plan_mix
from trainer.feed.augment.policies import build_policy
from trainer.feed.augment.seeding import SampleKey
from trainer.feed.device import feed_device
from trainer.feed.encoded import Encoded
from trainer.feed.feed import Batch, Feed, count_ahead
from trainer.feed.geometry import TrainGeometry, measure_plain
from trainer.feed.meter import Meter, Readings
from trainer.feed.shown import choose_draws, find_sorted_lanes, read_labels
from trainer.ranks.ranks import Ranks
from trainer.recipes.recipe import Recipe

Weigh = Callable[[Tensor, Tensor], Tensor]
"""Labels and weights of the dataset -> weights in the loss, float32[n]."""

LookUp = Callable[[Refs], Batch]
"""Samples -> their batch."""

Whole = Callable[[Sample, int, Meter], Tensor]
"""Sample, its copy in the epoch, and a meter -> uint8[C, S, S]."""


class TrainStream:
    """Epochs of training batches; their content does not depend on ranks and workers.

    weigh: Returns the loss weights from labels and sample weights; if omitted, sample weights are used unchanged.
    version: Version of the random streams, see shards.order.purposes.
    """

    def __init__(
        self,
        split: Split,
        recipe: Recipe,
        spec: PreprocessSpec,
        ranks: Ranks,
        weigh: Weigh = lambda _, weights: weights,
        version: int = VERSION,
    ) -> None:
        self._weigh = weigh
        self.workers = ranks.count_workers(recipe.workers)
        self._split = split
        self._recipe = recipe
        self._spec = spec
        self._ranks = ranks
        self._draws = choose_draws(split, recipe, version)
        self._lanes_apart = find_sorted_lanes(split, recipe, version)
        self._columns: dict[str, np.ndarray] = {}
        self._plan: tuple[int, EpochPlan] | None = None
        # held=1: a step is checked after the next batch has arrived, and its pictures may then have to be saved.
        pinned = ranks.device.type == "cuda"
        ahead = count_ahead(ranks.device)
        self.works_ahead = ahead > 0 and self.workers > 0
        self._feed = Feed(split, self.workers, held=1, pinned=pinned, ahead=ahead)
        self._make_load = make_late_load if recipe.stream.decode == "device" else make_load
        self.look_up: LookUp | None = None
        """Makes batches of epochs without reading pictures, if it is set; only for pictures that are not mixed."""
        self.samples_per_epoch = self.plan(0).num_samples
        self.clustering = bound_clustering(self.plan(0))
        """Upper bound on how often two samples of one shard share a batch, relative to a full shuffle."""

    def plan(self, epoch: int) -> EpochPlan:
        """Return the order of an epoch."""
        if self._plan is None or self._plan[0] != epoch:
            recipe, options = self._recipe, self._recipe.stream
            repeats = count_draws(self._draws, epoch, self._read_labels, lambda: self._column("weight"))
            order = OrderOptions(
                recipe.seed, recipe.batch_size_global, options.lanes, options.window_bytes, options.redeal
            )
            self._plan = (
                epoch,
                EpochPlan(ShardSizes(self._split.counts, self._split.shard_bytes, repeats), order, epoch),
            )
        return self._plan[1]

    def iterate(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """Yield this rank's slice of each step of an epoch, from `first_step` on, on the rank's device.

        Raises:
            ShardError: A sample cannot be read or decoded.
            OSError: A remote shard cannot be downloaded.
        """
        batches = self._iterate_mixed if self._recipe.augment.mixes else self._iterate_plain
        return feed_device(batches(epoch, first_step), self._ranks.device, self._feed.meter)

    def _iterate_plain(self, epoch: int, first_step: int) -> Iterator[Batch]:
        slices = self.plan(epoch).slices(first_step, self._ranks.rank, self._ranks.num_ranks)
        return self._read(slices, epoch) if self.look_up is None else self._look_up(slices, self.look_up)

    def _look_up(self, slices: Iterable[Refs], look_up: LookUp) -> Iterator[Batch]:
        for refs in slices:
            batch = look_up(refs)
            yield replace(batch, weights=self._weigh(batch.labels, batch.weights))

    def _spec_of(self, epoch: int) -> PreprocessSpec:
        """Return the preprocessing of an epoch, whose picture size may depend on it."""
        size = self._recipe.augment.train_size(epoch, self._spec.size)
        return self._spec if size == self._spec.size else self._spec.model_copy(update={"size": size})

    def _read(self, batches: Iterable[Refs], epoch: int) -> Iterator[Batch]:
        """Yield the feed's batches of an epoch, with weights for the loss."""
        spec = self._spec_of(epoch)
        for batch in self._feed.iterate(batches, self._make_load(self._recipe, spec, epoch), spec.shape):
            yield replace(batch, weights=self._weigh(batch.labels, batch.weights))

    def _iterate_mixed(self, epoch: int, first_step: int) -> Iterator[Batch]:
        mixes: deque[_Mix | None] = deque()

        def arrange() -> Iterator[Refs]:
            plan = self.plan(epoch)
            for step in range(first_step, plan.num_steps):
                refs, mix = self._arrange(plan, epoch, step)
                mixes.append(mix)
                yield refs

        for batch in self._read(arrange(), epoch):
            mix = mixes.popleft()
            yield batch if mix is None else _pair(batch, mix)

    def _arrange(self, plan: EpochPlan, epoch: int, step: int) -> tuple[Refs, _Mix | None]:
        """Return the samples this rank reads for a step, its own first, and how to mix them."""
        own = plan.slice(step, self._ranks.rank, self._ranks.num_ranks)
        mine = slice_rank(plan.step_size(step), self._ranks.rank, self._ranks.num_ranks)
        return self._add_partners(plan, epoch, step, own, mine)

    def _add_partners(self, plan: EpochPlan, epoch: int, step: int, own: Refs, mine: slice) -> tuple[Refs, _Mix | None]:
        """Return the samples of a slice of a step followed by their missing partners, and how to mix them."""
        size = plan.step_size(step)
        mix = plan_mix(self._recipe.augment, self._recipe.seed, epoch, step, size, self._lanes_apart)
        if mix is None:
            return own, None
        rows, missing = find_missing(mix.partners, mine)
        return concat_refs([own, _pick(plan, step, missing.tolist())]), _Mix(mix, rows)

    def peek(self, epoch: int, step: int, count: int) -> Batch:
        """Return the first `count` samples of a step over all ranks, as the step sees them; raises like `iterate`."""
        plan = self.plan(epoch)
        mine = slice(0, min(count, plan.step_size(step)))
        refs, mix = self._add_partners(plan, epoch, step, _pick(plan, step, range(mine.stop)), mine)
        batch = next(feed_device(self._read([refs], epoch), torch.device("cpu"), self._feed.meter))
        return batch if mix is None else _pair(batch, mix)

    def read_meter(self) -> Readings:
        """Return this rank's counts so far, and the time of each stage."""
        return self._feed.read_meter()

    def close(self) -> None:
        self._feed.close()

    def _read_labels(self) -> Labels:
        return read_labels(self._split, self._column)

    def _column(self, name: str) -> np.ndarray:
        if name not in self._columns:
            with SampleReader(self._split) as reader:
                self._columns[name] = reader.read_column(name)
        return self._columns[name]


@dataclass(frozen=True)
class _Mix:
    """How a step mixes; rows: int64[n], rows of the partners in this rank's batch."""

    plan: MixPlan
    rows: npt.NDArray[np.int64]


def _pick(plan: EpochPlan, step: int, places: Iterable[int]) -> Refs:
    """Return the samples at some positions of a global batch; only their lanes are computed."""
    size = plan.step_size(step)  # with as many ranks as samples, each rank has one
    return concat_refs([plan.slice(step, place, size) for place in places])


def _pair(batch: Batch, mix: _Mix) -> Batch:
    """Return the batch of a rank's own samples, with all pictures that were read and how to mix them."""
    count, rows, size = len(mix.rows), torch.from_numpy(mix.rows), batch.images.shape[-1]
    lam = torch.full((count,), mix.plan.share(size), dtype=torch.float32)
    box = mix.plan.box.place(size) if mix.plan.box else None
    pairs = Pairs(rows, batch.labels[rows], batch.weights[rows], lam, box)
    return replace(
        batch,
        labels=batch.labels[:count],
        weights=batch.weights[:count],
        ids=batch.ids[:count],
        sources=batch.sources[:count],
        pairs=pairs,
    )


def make_load(recipe: Recipe, spec: PreprocessSpec, epoch: int) -> Whole:
    """Return a function that makes the model's input of a sample in an epoch: decode, change, crop, change.

    Raises:
        UsageError: The pipeline cannot be built.
    """
    policy, seed = build_policy(recipe.augment), recipe.seed
    geometry = TrainGeometry(spec, recipe.augment, recipe.stream.decode == "fast", policy.before)
    after = policy.after

    def load(sample: Sample, copy: int, meter: Meter) -> Tensor:
        key = SampleKey(seed, epoch, sample.sample_id, copy)
        image = geometry.load(sample, key, meter)
        if after is None:
            return image
        with meter.timing("augment"):
            return after(image, key)

    return load


def make_late_load(
    recipe: Recipe, spec: PreprocessSpec, epoch: int
) -> Callable[[Sample, int, Meter], Tensor | Encoded]:
    """Like `make_load`, for a feed that leaves plain JPEGs to the device; the draws are the same."""
    whole, after = make_load(recipe, spec, epoch), build_policy(recipe.augment).after
    seed, geometry = recipe.seed, TrainGeometry(spec, recipe.augment)

    def load(sample: Sample, copy: int, meter: Meter) -> Tensor | Encoded:
        sides = measure_plain(sample)
        if sides is None:
            return whole(sample, copy, meter)
        key = SampleKey(seed, epoch, sample.sample_id, copy)

        def finish(decoded: Tensor) -> Tensor:
            meter.count_side(max(sides))
            image = geometry.shape(decoded, key)
            return image if after is None else after(image, key)

        return Encoded(sample, sides, finish, partial(whole, sample, copy, meter))

    return load
