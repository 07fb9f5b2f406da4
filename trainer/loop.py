"""The training loop: epochs of steps, an evaluation after each, snapshots, early stopping.

It runs alike in a plain process, in a Ray Train worker and in a Tune trial; all it sees of them is its Ranks
and a function that takes each epoch's numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from shards.dataset import Dataset, Split, open_dataset
from shards.errors import ShardError, UsageError
from trainer.build import build_model, build_preprocess
from trainer.contract.preprocess import PreprocessSpec
from trainer.evaluation.metrics import compute_metrics, select_scalars
from trainer.evaluation.rows import Rows, evaluate_split
from trainer.feed.feed import Batch
from trainer.feed.meter import Readings, judge
from trainer.feed.stream import TrainStream
from trainer.ranks import Ranks
from trainer.recipe import Recipe
from trainer.record.ledger import Ledger, drop_after, read_position
from trainer.record.logbook import Logbook, Numbers
from trainer.record.run_store import open_run_store
from trainer.record.snapshot import Best, RunState, SnapshotStore, name_snapshot
from trainer.record.track import Tracker
from trainer.run_dir import SAVE_FILE, SNAPSHOTS, STOP_FILE
from trainer.step.engine import Engine
from trainer.step.schedule import scale_lr

ReportEpoch = Callable[[Numbers], None]
Outcome = Literal["finished", "interrupted"]


@dataclass
class Run:
    """All parts of a run on one rank."""

    recipe: Recipe
    dataset: Dataset
    ranks: Ranks
    engine: Engine
    preprocess: PreprocessSpec
    stream: TrainStream
    store: SnapshotStore
    state: RunState
    ledger: Ledger | None
    logbook: Logbook | None
    tracker: Tracker | None
    verdict: str = ""
    """On the feed of the last epoch."""
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def run_dir(self) -> Path:
        return self.recipe.run_dir

    @property
    def val_split(self) -> Split:
        return self.dataset.split("val")

    @property
    def total_samples(self) -> int:
        return self.stream.samples_per_epoch * self.recipe.epochs


def train(recipe: Recipe, ranks: Ranks, report: ReportEpoch) -> Outcome:
    """Train until the last epoch, an early stop, or a request to stop; every rank calls it.

    Goes on from the last snapshot in the run's folder. Interrupted means that the state was saved and the same
    command goes on.

    Raises:
        UsageError: A recipe that does not fit the data, or a snapshot of another run.
        ShardError: A sample that cannot be read, or outputs that are no longer finite.
    """
    run = _open_run(recipe, ranks)
    try:
        while not _is_done(run):
            numbers = _train_epoch(run)
            if numbers is None:
                return "interrupted"
            _end_epoch(run, numbers, _judge_epoch(run), report)
    finally:
        run.stream.close()
        run.store.close()
        if run.tracker:
            run.tracker.close()
    return "finished"


def _judge_epoch(run: Run) -> Numbers:
    """Return the metrics of the weights on the validation part."""
    started = time.monotonic()
    # The snapshot is rank 0's; each rank's BatchNorm has gone its own way in the last step.
    run.ranks.copy_from_first(run.engine.model.buffers())
    rows = evaluate_split(run.engine.model, run.preprocess, run.val_split, run.ranks, run.stream.workers)
    _refuse_divergence(rows, run)
    metrics = select_scalars(compute_metrics(rows.labels, rows.logits, run.dataset.classes))
    numbers = {f"val/{name}": value for name, value in metrics.items() if name != "samples"}
    return numbers | {"val/time_s": time.monotonic() - started}


def _open_run(recipe: Recipe, ranks: Ranks) -> Run:
    dataset = open_dataset(recipe.data, recipe.cache_options(ranks.on_node))
    engine = Engine(build_model(recipe, len(dataset.classes)), recipe, ranks)
    store = SnapshotStore(recipe.run_dir / SNAPSHOTS)
    fresh = RunState(dataset=dataset.fingerprint(), recipe=recipe.fingerprint())
    state = store.read_last() or fresh
    _refuse_foreign(state, fresh)
    if state.samples_seen:
        store.load(state, engine)
    ledger = _open_ledger(recipe, ranks, state) if recipe.ledger else None
    logbook = Logbook(recipe.run_dir, state.epochs_done) if ranks.is_first else None
    tracker = Tracker(recipe, dataset.fingerprint()) if ranks.is_first else None
    preprocess = build_preprocess(recipe, dataset)
    stream = TrainStream(dataset.split("train"), recipe, preprocess, ranks)
    return Run(recipe, dataset, ranks, engine, preprocess, stream, store, state, ledger, logbook, tracker)


def _refuse_foreign(state: RunState, fresh: RunState) -> None:
    if state.dataset != fresh.dataset:
        raise UsageError(
            f"the snapshot belongs to dataset {state.dataset[:12]}, the recipe's data is {fresh.dataset[:12]}; "
            "its position means nothing there. Choose another name=, or delete the run's folder"
        )
    if state.recipe != fresh.recipe:
        raise UsageError(
            f"the snapshot belongs to recipe {state.recipe[:12]}, this one is {fresh.recipe[:12]}; "
            "choose another name=, or delete the run's folder"
        )


def _open_ledger(recipe: Recipe, ranks: Ranks, state: RunState) -> Ledger:
    folder = recipe.run_dir / "ledger"
    done_before = read_position(folder)
    ranks.barrier()  # every rank has read the position before rank 0 moves it
    if ranks.is_first:
        drop_after(folder, state.samples_seen)
    ranks.barrier()
    return Ledger(folder, ranks.rank, state.samples_seen, done_before, open_run_store(recipe))


def _refuse_divergence(rows: Rows, run: Run) -> None:
    if not np.isfinite(rows.logits).all():
        raise ShardError(
            f"after epoch {run.state.epochs_done + 1} the model's outputs are not finite numbers: training diverged, "
            "or BatchNorm saw too few steps to settle. Lower optim.peak_lr or set optim.clip_norm, and choose another "
            f"name=, or delete {run.run_dir}"
        )


def _is_done(run: Run) -> bool:
    patience = run.recipe.stop.patience
    if patience is not None and run.state.epochs_without_better >= patience:
        return True
    return run.state.epochs_done >= run.recipe.epochs


def _train_epoch(run: Run) -> Numbers | None:
    """Train what is left of the epoch that the state stands in; return its numbers, None when asked to stop."""
    recipe, epoch = run.recipe, run.state.epochs_done
    plan = run.stream.plan(epoch)
    done = run.state.samples_seen - epoch * plan.num_samples
    first = -(-done // recipe.batch_size_global)  # rounded up: the last step of an epoch may be short
    batches = run.stream.iterate(epoch, first)
    before, seen_before = run.stream.read_meter(), run.state.samples_seen
    started, waited, scale = time.monotonic(), 0.0, 0.0
    for step in range(first, plan.num_steps):
        asked = time.monotonic()
        batch = next(batches)
        wait = time.monotonic() - asked
        scale = scale_lr(recipe.schedule, run.state.samples_seen, run.total_samples, plan.num_samples)
        stop = _train_step(run, batch, scale, epoch * plan.num_steps + step, plan.step_size(step))
        waited += wait
        _show(run, wait / (time.monotonic() - asked))
        if stop:
            return None
    seconds = time.monotonic() - started
    return {
        "epoch": epoch + 1,
        "samples_seen": run.state.samples_seen,
        "train/loss": run.state.loss_sum / max(run.state.weight_sum, 1e-12),
        "train/lr": recipe.optim.peak_lr * scale,
        "train/time_s": seconds,
        "feed/img_s": (run.state.samples_seen - seen_before) / seconds,
        "feed/wait_frac": waited / seconds,
        **_read_feed(run, run.stream.read_meter().since(before), waited / seconds),
    }


def _read_feed(run: Run, readings: Readings, wait_frac: float) -> Numbers:
    """Return what this rank's feed did in an epoch; keep in words whether its steps wait for it."""
    run.verdict = judge(readings, wait_frac, run.stream.workers, run.ranks.cpus, run.recipe.image_size)
    return {
        "feed/clustering": run.stream.clustering,
        "feed/bytes_read": readings.bytes_read,
        "feed/bytes_downloaded": readings.bytes_downloaded,
        "feed/cache_hits": readings.cache_hits,
        "feed/cache_misses": readings.cache_misses,
        **{f"feed/{stage}_s": seconds for stage, seconds in readings.seconds.items()},
    }


def _show(run: Run, wait_frac: float) -> None:
    """Tell where the run stands, and which share of its last step it waited for data."""
    if run.logbook:
        loss = run.state.loss_sum / max(run.state.weight_sum, 1e-12)
        numbers = {"loss": loss, "epoch": run.state.epochs_done + 1, "wait_frac": round(wait_frac, 3)}
        run.logbook.show(run.state.samples_seen, run.total_samples, numbers)


def _train_step(run: Run, batch: Batch, scale: float, step: int, length: int) -> bool:
    """Take one global step of `length` samples; return whether the run was asked to stop and has saved its state."""
    device, engine = run.ranks.device, run.engine
    shared = torch.zeros(3, dtype=torch.float64)
    shared[0] = engine.weigh(batch).double().sum()
    if run.ranks.is_first:
        shared[1] = float((run.run_dir / STOP_FILE).exists())
        due = time.monotonic() - run.saved_at > run.recipe.snapshot.every_s
        shared[2] = float(due or (run.run_dir / SAVE_FILE).exists())
    total_weight, stop, save = run.ranks.sum(shared.to(device)).unbind()
    loss = engine.step(batch, total_weight.float(), scale, step)
    loss_sum = float(run.ranks.sum(loss.double()))
    if run.ledger:
        run.ledger.add(batch, run.state.epochs_done, step, run.state.samples_seen)
    run.state = run.state.model_copy(
        update={
            "samples_seen": run.state.samples_seen + length,
            "loss_sum": run.state.loss_sum + loss_sum,
            "weight_sum": run.state.weight_sum + float(total_weight),
        }
    )
    if stop or save:
        _save(run)
    if stop:
        run.store.wait()
    return bool(stop)


def _save(run: Run) -> None:
    """Save the state; rows of the ledger are on disk on every rank before the snapshot appears."""
    if run.ledger:
        run.ledger.flush(run.state.samples_seen)
        run.ranks.barrier()
    if run.ranks.is_first:
        (run.run_dir / SAVE_FILE).unlink(missing_ok=True)
        run.store.save(run.state, run.engine)
    run.saved_at = time.monotonic()


def _end_epoch(run: Run, trained: Numbers, judged: Numbers, report: ReportEpoch) -> None:
    """Compare the epoch, save it when it is the best or due, and tell its numbers to whoever listens."""
    numbers, epoch = trained | judged, run.state.epochs_done + 1
    value = judged[f"val/{run.recipe.stop.metric}"]
    better = _is_better(value, run.state.best, run.recipe)
    best = Best(epoch=epoch, value=value, snapshot=name_snapshot(run.state.samples_seen)) if better else run.state.best
    waited = 0 if better else run.state.epochs_without_better + 1
    update = {"best": best, "epochs_done": epoch, "epochs_without_better": waited, "loss_sum": 0.0, "weight_sum": 0.0}
    run.state = run.state.model_copy(update=update)
    assert best is not None  # any first value is better than none
    numbers["val/best"] = best.value
    if run.logbook:
        run.logbook.write(numbers, run.verdict)  # before the snapshot: an epoch that counts as done has its row
    if better or epoch % run.recipe.snapshot.every_epochs == 0 or _is_done(run):
        _save(run)
    if run.tracker:
        run.tracker.log(numbers)
    report(numbers)


def _is_better(value: float, best: Best | None, recipe: Recipe) -> bool:
    if best is None:
        return True
    gain = best.value - value if recipe.stop.metric == "log_loss" else value - best.value
    return gain > recipe.stop.min_delta
