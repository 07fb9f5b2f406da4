"""The training loop: epochs of steps, an evaluation after each, snapshots, early stopping.

It is the same in a plain process, a Ray Train worker and a Tune trial, which it only knows through its Ranks and a
function that takes each epoch's numbers.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from shards.errors import ShardError, UsageError
from shards.order.plan import EpochPlan
from trainer.contract.bundle import MOST_SHARES
from trainer.evaluate.metrics.metrics import compute_scalars
from trainer.evaluate.metrics.rule import find_rule
from trainer.evaluate.rows import Rows, evaluate_split
from trainer.feed.meter import Readings, judge
from trainer.loop.session import Run, is_trained, open_run
from trainer.loop.steps import Coming, save, settle, take_step
from trainer.ranks.ranks import Ranks
from trainer.recipes.recipe import Recipe, ResolvedRecipe
from trainer.record.logbook import PREDICTED, Numbers
from trainer.record.meters import RunMeters
from trainer.record.progress import RunProgress
from trainer.record.room import explaining_stop
from trainer.record.run_folder import RunFolder
from trainer.record.snapshot import Best, name_snapshot
from trainer.record.track.track import Tracker
from trainer.step.schedule import scale_lr, watch_metric

detail_logger = logging.getLogger(f"{__name__}.progress")

ReportEpoch = Callable[[Numbers], None]
Outcome = Literal["finished", "interrupted"]


def train(
    recipe: ResolvedRecipe,
    folder: RunFolder,
    ranks: Ranks,
    report: ReportEpoch,
    tracker: Tracker | None = None,
    progress: RunProgress | None = None,
    meters: RunMeters | None = None,
) -> Outcome:
    """Train until the last epoch, an early stop, or a request to stop; every rank calls it, rank 0 with a tracker.

    Resumes from the last snapshot in the run folder. Interrupted means that the state was saved and the same command
    resumes.

    Raises:
        UsageError: The recipe does not fit the data, the snapshot is of another run, or a disk is full.
        ShardError: A sample cannot be read, or outputs are no longer finite.
    """
    run = open_run(recipe, folder, ranks, tracker, progress, meters)
    with explaining_stop(folder, lambda: run.state.samples_seen), _closing(run):
        while not is_trained(recipe, run.state):
            numbers = _train_epoch(run)
            if numbers is None:
                return "interrupted"
            _end_epoch(run, numbers, _judge_epoch(run), report)
        run.progress.end_training()
    return "finished"


@contextlib.contextmanager
def _closing(run: Run) -> Iterator[None]:
    """Close the run after the block; an error of the block takes precedence over errors of closing."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):
            run.close()
        raise
    run.close()


def _judge_epoch(run: Run) -> Numbers:
    """Return the metrics of the weights on the validation split."""
    started = time.monotonic()
    run.meters.enter("validating")
    with run.engine.judged_weights(), run.progress.validating() as advance:
        # Snapshots have rank 0's buffers; BatchNorm statistics differ by rank, in the model and in the average.
        run.ranks.copy_from_first(run.engine.model.buffers())
        model, ranks = run.engine.model, run.ranks
        if run.cached_val is not None:
            rows = run.cached_val.evaluate(model, ranks)
        else:
            rows = evaluate_split(model, run.preprocess, run.val_split, ranks, run.stream.workers, advance)
    _refuse_divergence(rows, run)
    run.predicted = count_predicted(rows)
    metrics = judge_rows(rows, run.dataset.classes, run.positive)
    if run.recipe.stop.metric not in metrics:
        raise UsageError(
            f"stop.metric={run.recipe.stop.metric} has no value on the validation split; use another one, and choose "
            "another name="
        )
    numbers = {f"val/{name}": value for name, value in metrics.items() if name != "samples"}
    return numbers | {"val/time_s": time.monotonic() - started}


def judge_rows(rows: Rows, classes: list[str], positive: str | None) -> Numbers:
    """Return the metrics that are single numbers; positive: the positive class, None if there is none."""
    return compute_scalars(rows.labels, rows.logits, classes, find_rule(rows.task, classes, positive))


def count_predicted(rows: Rows) -> str:
    """Return how many samples each class is predicted for, in the order of the classes; "" with too many classes."""
    num_classes = rows.logits.shape[1]
    if num_classes > MOST_SHARES:
        return ""
    return " ".join(map(str, rows.task.flag(rows.predicted, num_classes).sum(axis=0).tolist()))


def _refuse_divergence(rows: Rows, run: Run) -> None:
    if not np.isfinite(rows.logits).all():
        raise ShardError(
            f"after epoch {run.state.epochs_done + 1} the model's outputs are not finite: training diverged, "
            "or BatchNorm saw too few steps to settle. Lower optim.peak_lr or set optim.clip_norm, and choose another "
            f"name=, or delete {run.folder.path}"
        )


def _train_epoch(run: Run) -> Numbers | None:
    """Train the rest of the current epoch; return its numbers, or None if asked to stop."""
    recipe, epoch = run.recipe, run.state.epochs_done
    run.progress.begin_epoch(epoch)
    run.meters.begin_epoch(epoch)
    run.engine.begin_epoch(epoch)
    plan = run.stream.plan(epoch)
    done = run.state.samples_seen - epoch * plan.num_samples
    first = -(-done // recipe.batch_size_global)  # rounded up: the last step of an epoch may be smaller
    batches = run.stream.iterate(epoch, first)
    before, seen_before = run.stream.read_meter(), run.state.samples_seen
    started, waited = time.monotonic(), 0.0
    for step in range(first, plan.num_steps):
        run.progress.wait_for_batch()
        asked = time.monotonic()
        batch = next(batches)
        run.progress.take_step(first=step == first)
        wait = time.monotonic() - asked
        number, size = epoch * plan.num_steps + step, plan.step_size(step)
        stop = take_step(run, batch, Coming(number, size, _scale_lr(run, plan, step), asked, wait))
        run.progress.end_step(run.state.samples_seen)
        waited += wait
        _show(run, wait / (time.monotonic() - asked))
        if stop:
            return None
    settle(run)
    seconds = time.monotonic() - started
    return {
        "epoch": epoch + 1,
        "step": (epoch + 1) * plan.num_steps,
        "samples_seen": run.state.samples_seen,
        "train/loss": run.state.loss_sum / max(run.state.weight_sum, 1e-12),
        "train/lr": recipe.optim.peak_lr * _scale_lr(run, plan, plan.num_steps - 1),
        "train/time_s": seconds,
        "train/skipped_steps": run.state.skipped_steps,
        "feed/img_s": (run.state.samples_seen - seen_before) / seconds,
        "feed/wait_frac": waited / seconds,
        **_read_feed(run, run.stream.read_meter().since(before), waited / seconds),
    }


def _scale_lr(run: Run, plan: EpochPlan, step: int) -> float:
    """Return the share of the peak learning rate in a step of the current epoch."""
    seen = plan.num_samples * run.state.epochs_done + step * run.recipe.batch_size_global
    return scale_lr(run.recipe.schedule, seen, run.scheduled_samples, plan.num_samples, run.state.plateau)


def _read_feed(run: Run, readings: Readings, wait_frac: float) -> Numbers:
    """Return the numbers of this rank's feed in an epoch; store the verdict on whether steps wait for it."""
    stream, cpus = run.stream, run.ranks.cpus
    run.verdict = judge(readings, wait_frac, stream.workers, cpus, run.preprocess.size, stream.works_ahead)
    return {
        "feed/clustering": run.stream.clustering,
        "feed/bytes_read": readings.bytes_read,
        "feed/bytes_downloaded": readings.bytes_downloaded,
        "feed/cache_hits": readings.cache_hits,
        "feed/cache_misses": readings.cache_misses,
        **{f"feed/{stage}_s": seconds for stage, seconds in readings.seconds.items()},
    }


def _show(run: Run, wait_frac: float) -> None:
    """Write the run's progress, and the share of the last step spent waiting for data."""

    def number() -> Numbers:
        # Until the ranks sum their losses, this rank's loss stands for all: a sum would delay every step.
        loss = run.state.loss_sum + float(run.loss_here) * run.ranks.num_ranks
        mean = loss / max(run.state.weight_sum, 1e-12)
        return {"loss": mean, "epoch": run.state.epochs_done + 1, "wait_frac": round(wait_frac, 3)}

    shown = run.logbook.show(run.state.samples_seen, run.total_samples, number) if run.logbook else None
    if shown:
        run.progress.show_loss(shown["loss"])
        run.meters.show_loss(shown["loss"])


def _end_epoch(run: Run, trained: Numbers, judged: Numbers, report: ReportEpoch) -> None:
    """Compare the epoch with the best, save a snapshot if it is better or due, and report its numbers."""
    numbers, epoch = trained | judged, run.state.epochs_done + 1
    value = judged[f"val/{run.recipe.stop.metric}"]
    better = _is_better(value, run.state.best, run.recipe)
    best = Best(epoch=epoch, value=value, snapshot=name_snapshot(run.state.samples_seen)) if better else run.state.best
    waited = 0 if better else run.state.epochs_without_better + 1
    update = {"best": best, "epochs_done": epoch, "epochs_without_better": waited, "loss_sum": 0.0, "weight_sum": 0.0}
    lower = run.recipe.stop.lower_is_better
    watched = watch_metric(run.recipe.schedule, run.state.plateau, value, lower_is_better=lower)
    run.state = run.state.model_copy(update={**update, "plateau": watched})
    assert best is not None  # the first value is always better
    numbers |= {"val/best": best.value, "val/best_epoch": best.epoch}
    if run.logbook:
        words = {"feed/verdict": run.verdict} | ({"val/positive": run.positive} if run.positive else {})
        words |= {PREDICTED: run.predicted} if run.predicted else {}
        run.logbook.write(numbers, words)  # before the snapshot, so that every finished epoch has its row
    if better or epoch % run.recipe.snapshot.every_epochs == 0 or is_trained(run.recipe, run.state):
        save(run)
    if run.tracker:
        run.tracker.log_epoch(numbers, run.positive)
    run.progress.end_epoch(numbers, waited)
    run.meters.end_epoch(numbers)
    rate, lr = numbers["feed/img_s"], numbers["train/lr"]
    detail_logger.debug("%.4g pictures a second, learning rate %.3g; %s", rate, lr, run.verdict)
    report(numbers)


def _is_better(value: float, best: Best | None, recipe: Recipe) -> bool:
    if best is None:
        return True
    return recipe.stop.gain(value, best.value) > recipe.stop.min_delta
