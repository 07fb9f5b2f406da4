"""The objects of a run on one rank, in the state of the last snapshot."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from shards.dataset.affected import describe_affected, describe_found, find_affected
from shards.dataset.dataset import Dataset, open_dataset
from shards.dataset.split import Split
from shards.errors import UsageError
from shards.files.temporary import clear_leftovers
from shards.order.purposes import VERSION as STREAMS
from shards.pictures.decoding import VERSION as DECODING
from shards.pictures.decoding import describe_versions
from trainer.contract.preprocess import PreprocessSpec
from trainer.contract.task import make_task
from trainer.evaluate.positive import find_positive, take_default
from trainer.feed.shown import count_weighed
from trainer.feed.stream import TrainStream
from trainer.loop.build import build_model, build_preprocess
from trainer.ranks.ranks import Ranks
from trainer.recipes.longer import find_begun_epochs, takes_more_epochs
from trainer.recipes.misfit import refuse_misfit
from trainer.recipes.recipe import Recipe, ResolvedRecipe
from trainer.record.ledger import LEDGER, Ledger, drop_after, number_start, read_position
from trainer.record.logbook import Logbook, read_metrics
from trainer.record.meters import RunMeters
from trainer.record.progress import RunProgress, Size
from trainer.record.room import require_room
from trainer.record.run_folder import RunFolder
from trainer.record.snapshot import RunState, SnapshotStore
from trainer.record.steps import StepLog, count_steps
from trainer.record.track.track import Tracker
from trainer.step.engine import Engine
from trainer.step.guard import Guard
from trainer.step.loss import Loss, build_loss
from trainer.step.norms import describe_local_norms

if TYPE_CHECKING:
    from trainer.loop.cached import CachedSplit

logger = logging.getLogger(__name__)

NONFINITE = "nonfinite"
"""Subfolder of the run folder for samples whose loss was not finite."""


@dataclass
class Run:
    """The objects of a run on one rank."""

    recipe: ResolvedRecipe
    folder: RunFolder
    dataset: Dataset
    ranks: Ranks
    engine: Engine
    preprocess: PreprocessSpec
    stream: TrainStream
    store: SnapshotStore
    state: RunState
    ledger: Ledger | None
    logbook: Logbook | None
    step_log: StepLog | None
    tracker: Tracker | None
    progress: RunProgress
    meters: RunMeters
    guard: Guard
    loss_here: Tensor
    """float64[], weighted loss of this rank's samples that is not yet in the state."""
    cached_val: CachedSplit | None = None
    """Features of the validation split, if the head is trained on features."""
    verdict: str = ""
    """Verdict on the feed in the last epoch."""
    predicted: str = ""
    """How many validation samples each class was predicted for in the last epoch."""
    saved_at: float = field(default_factory=time.monotonic)

    def close(self) -> None:
        """End the threads of feed and snapshots."""
        try:
            self.stream.close()
        finally:
            self.store.close()

    @property
    def positive(self) -> str | None:
        """The positive class; None if there is none."""
        task = make_task(self.dataset.manifest.task)
        found = find_positive(self.recipe, self.dataset) or take_default(task, self.dataset.classes)
        return found.name if found else None

    @property
    def val_split(self) -> Split:
        return self.dataset.split("val")

    @property
    def total_samples(self) -> int:
        return self.stream.samples_per_epoch * self.recipe.epochs

    @property
    def scheduled_samples(self) -> int:
        """Samples of the learning rate schedule: those of the original number of epochs."""
        return self.stream.samples_per_epoch * (self.state.begun_epochs or self.recipe.epochs)


def open_run(
    recipe: ResolvedRecipe,
    folder: RunFolder,
    ranks: Ranks,
    tracker: Tracker | None = None,
    progress: RunProgress | None = None,
    meters: RunMeters | None = None,
) -> Run:
    """Open a run at its last snapshot; every rank calls it, rank 0 with a tracker. Raises like `train`."""
    dataset = open_dataset(recipe.data, recipe.cache_options(ranks.on_node))
    store = SnapshotStore(folder.snapshots, keeps_all=recipe.snapshot.keep == "all")
    if ranks.is_first:
        clear_leftovers(folder.path)
    fresh = RunState(dataset=dataset.fingerprint(), recipe=recipe.fingerprint(), decoding=DECODING, streams=STREAMS)
    state = store.read_last() or fresh
    state = _give_more_epochs(state, recipe)
    _refuse_foreign(state, fresh)
    preprocess = build_preprocess(recipe, dataset, state.decoding)
    if ranks.is_first:
        for sentence in describe_decoding(dataset, state):
            logger.warning("%s", sentence)
    begun = state.streams if state.samples_seen else None
    if ranks.is_first and begun is not None and (note := describe_streams(recipe, begun)):
        logger.warning("%s", note)
    engine, stream = open_engine(recipe, dataset, preprocess, ranks, folder.read_parts(), begun=begun)
    if state.samples_seen:
        store.load(state, engine)
    if not is_trained(recipe, state):
        require_room(recipe, folder, ranks, engine)
    cached_val = None
    if recipe.cache_features:
        from trainer.loop.cached import Caching  # late: most runs train on pictures

        place = Path(recipe.storage.features) if recipe.storage.features else folder.features
        caching = Caching(engine, dataset, preprocess, ranks, stream.workers, place)
        stream.look_up, cached_val = caching.open("train").take, caching.open("val")
    every = recipe.track.every_steps
    if tracker:
        tracker.start(dataset, count_steps(state.samples_seen, stream.samples_per_epoch, recipe.batch_size_global))
    run = Run(
        recipe=recipe,
        folder=folder,
        dataset=dataset,
        ranks=ranks,
        engine=engine,
        preprocess=preprocess,
        stream=stream,
        store=store,
        state=state,
        ledger=_open_ledger(folder, ranks, state) if recipe.ledger else None,
        logbook=Logbook(folder.path, state.epochs_done) if ranks.is_first else None,
        step_log=StepLog(folder.path, every, state.samples_seen) if ranks.is_first and every else None,
        tracker=tracker,
        progress=progress or RunProgress(recipe, speaks=False),
        meters=meters or RunMeters(),
        guard=Guard(folder.path / NONFINITE, ranks.rank),
        loss_here=torch.zeros((), dtype=torch.float64, device=ranks.device),
        cached_val=cached_val,
    )
    _begin_progress(run)
    run.meters.open(
        metric=recipe.stop.metric,
        batch_size=recipe.batch_size_global,
        position=state.samples_seen,
        total=run.total_samples,
        skipped=state.skipped_steps,
        every_s=recipe.snapshot.every_s,
        read=stream.read_meter,
    )
    return run


def _begin_progress(run: Run) -> None:
    """Log what is trained, and where it resumes."""
    recipe, ranks, model = run.recipe, run.ranks, run.engine.model
    end = sum(run.dataset.split(part).num_samples for part in recipe.evaluate_on)
    device = "CPU" if ranks.device.type == "cpu" else torch.cuda.get_device_name(ranks.device)
    where = f"on {device}" if ranks.num_ranks == 1 else f"on {ranks.num_ranks} ranks, {device}"
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    last = read_metrics(run.folder.path)[-1:]
    run.progress.begin(
        run.state,
        Size(run.stream.samples_per_epoch, run.val_split.num_samples, end),
        last[0].get(f"val/{recipe.stop.metric}") if last else None,
        f"{recipe.model} ({millions:.2f} M parameters) {where}",
    )


def is_trained(recipe: Recipe, state: RunState) -> bool:
    """Return whether a run has finished its last epoch, or stopped early."""
    patience = recipe.stop.patience
    if patience is not None and state.epochs_without_better >= patience:
        return True
    return state.epochs_done >= recipe.epochs


def open_engine(
    recipe: ResolvedRecipe,
    dataset: Dataset,
    preprocess: PreprocessSpec,
    ranks: Ranks,
    least_parts: int = 1,
    place: Ranks | None = None,
    begun: int | None = None,
) -> tuple[Engine, TrainStream]:
    """Return the engine and the stream of batches; every rank calls it. Raises like `train`.

    least_parts: Minimum number of microbatches per slice.
    place: The rank whose batches to use, if it is not the computing rank.
    begun: For a run with a snapshot, the version of the random streams it started with; checks of new runs are then
        skipped.
    """
    refuse_misfit(recipe, dataset)
    split = dataset.split("train")
    version = begun or STREAMS
    loss = _build_loss(recipe, dataset.classes, split, version)
    teacher = None
    if recipe.loss.teacher is not None:
        from trainer.step.distillation import load_distillation  # late: most runs have no teacher

        teacher = load_distillation(recipe.loss, split.task, dataset.classes, preprocess, str(ranks.device))
    model = build_model(recipe, len(dataset.classes), begun is not None)

    def weigh(labels: Tensor, weights: Tensor) -> Tensor:
        # A weighted order already uses the samples' weights.
        counts = recipe.loss.sample_weights and recipe.stream.order != "weighted"
        return loss.weigh(labels) * (weights if counts else 1.0)

    num_ranks = (place or ranks).num_ranks
    stream = TrainStream(split, recipe, preprocess, place or ranks, weigh, version)
    engine = Engine(model, recipe, ranks, loss, teacher, least_parts, stream.samples_per_epoch)
    engine.fit(-(-recipe.batch_size_global // ranks.num_ranks), preprocess.shape)
    try:
        _check_norms(engine, recipe, ranks, num_ranks, 0 if begun else stream.samples_per_epoch)
    except UsageError:
        stream.close()
        raise
    return engine, stream


def _check_norms(engine: Engine, recipe: Recipe, ranks: Ranks, num_ranks: int, new_samples: int) -> None:
    """Log how BatchNorm depends on ranks and microbatches; raise if it would learn no statistics.

    new_samples: Samples of an epoch of a new run; 0 for a started run, which is not checked.
    """
    cut = engine.cut(num_ranks)
    if recipe.weights == "none" and new_samples:
        engine.norms.refuse_single(cut, new_samples, recipe.step.accumulate)
    if not ranks.is_first:
        return
    if local := describe_local_norms(engine.model, num_ranks):
        logger.info("%s", local)
    if single := engine.norms.describe_single(cut):
        logger.warning("%s", single)


def _build_loss(recipe: Recipe, classes: list[str], split: Split, version: int) -> Loss:
    counts, total = count_weighed(split, recipe, version)
    if split.task == "multi-label":
        from trainer.step.multi_label_loss import build_multi_label_loss  # late: most datasets have one label

        return build_multi_label_loss(recipe.loss, counts, total, classes)
    return build_loss(recipe.loss, counts, classes)


def _give_more_epochs(state: RunState, recipe: ResolvedRecipe) -> RunState:
    """Return the state with the recipe's epochs, if it was started with fewer and the schedule allows more."""
    fingerprint = recipe.fingerprint()
    if state.recipe == fingerprint or not takes_more_epochs(recipe):
        return state
    begun = find_begun_epochs(recipe, state.recipe)
    if begun is None:
        return state
    return state.model_copy(update={"recipe": fingerprint, "begun_epochs": state.begun_epochs or begun})


def _refuse_foreign(state: RunState, fresh: RunState) -> None:
    if state.dataset != fresh.dataset:
        raise UsageError(
            f"the snapshot belongs to dataset {state.dataset[:12]}, but the recipe's data is {fresh.dataset[:12]}; "
            "its position is not valid there. Choose another name=, or delete the run's folder"
        )
    if state.recipe != fresh.recipe:
        raise UsageError(
            f"the snapshot belongs to recipe {state.recipe[:12]}, but this one is {fresh.recipe[:12]}; "
            "choose another name=, or delete the run's folder"
        )


def describe_streams(recipe: Recipe, begun: int) -> str | None:
    """Return the note for a run whose augmentation changes because its random streams have another version."""
    policy = recipe.augment.policy
    if begun == STREAMS or policy not in ("light", "strong"):
        return None
    return (
        f"the run started when augment.policy={policy} rotated, scaled and shifted pictures with interpolation; now it "
        "shifts half of them by whole pixels. To use one policy throughout, start another run with another name="
    )


def describe_decoding(dataset: Dataset, state: RunState) -> list[str]:
    """Return notes on pictures whose decoding has changed since they were packed, or during the run."""
    found = find_affected(dataset)
    if not found.stored and state.samples_seen and state.decoding != DECODING:  # stored decoding never changes
        found = find_affected(dataset, state.decoding)
        so_far = describe_versions("the run so far", state.decoding)
        if state.decoding > DECODING:
            return [so_far]
        return [f"{so_far}. {describe_found(found, state.decoding)}"] if found.count else []
    if found.count or dataset.manifest.decoding > DECODING:
        return [describe_affected(dataset, found)]
    return []


def _open_ledger(folder: RunFolder, ranks: Ranks, state: RunState) -> Ledger:
    path = folder.path / LEDGER
    done_before = read_position(path)
    ranks.barrier()  # all ranks read the position before rank 0 changes it
    if ranks.is_first:
        drop_after(path, state.samples_seen)
    start = max(ranks.gather(number_start(path)))
    return Ledger(path, ranks.rank, state.samples_seen, done_before, start, folder.store)
