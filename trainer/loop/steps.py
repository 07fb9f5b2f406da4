"""Take steps of a run and save its state, together on all ranks."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from shards.errors import ShardError
from trainer.feed.feed import Batch
from trainer.loop.session import Run
from trainer.record.steps import StepNumbers
from trainer.step.engine import Step


@dataclass(frozen=True)
class Coming:
    """A global step about to be taken.

    number: Number in the run, from 0; size: samples of its global batch; lr_scale: share of the peak learning rate;
    asked_at: when its batch was requested, by the monotonic clock; wait_s: seconds until it arrived.
    """

    number: int
    size: int
    lr_scale: float
    asked_at: float
    wait_s: float


def take_step(run: Run, batch: Batch, coming: Coming) -> bool:
    """Take one global step; return whether the run was asked to stop and has saved its state."""
    stop, due = 0.0, 0.0
    if run.ranks.is_first:
        run.store.check()  # raise a writer error now, not at the next snapshot
        stop = float(run.folder.stop_file.exists())
        late = time.monotonic() - run.saved_at > run.recipe.snapshot.every_s
        due = float(late or run.folder.save_file.exists())
    total_weight, stop, due, bad = run.ranks.agree(batch.total_weight, stop, due, float(run.guard.is_bad()))
    if bad:
        _refuse_nonfinite(run)
    done = run.engine.step(batch, total_weight, coming.lr_scale, coming.number)
    run.guard.watch(coming.number, batch, done.losses)
    if run.ledger:
        run.ledger.add(batch, run.state.epochs_done, coming.number, run.state.samples_seen)
    _count(run, done, total_weight, coming.size)
    _log_step(run, coming, done, total_weight)  # before the snapshot, so that every counted step has its row
    _measure_step(run, coming)
    if stop or due:
        settle(run)
        save(run)
    if stop:
        run.store.wait()
    return bool(stop)


def _log_step(run: Run, coming: Coming, done: Step, total_weight: float) -> None:
    """Write a row for a step if one is due; the ranks then sum their losses."""
    every, number = run.recipe.track.every_steps, coming.number + 1
    if not every:
        return
    loss = math.nan
    if number % every == 0:
        loss = float(run.ranks.sum(done.losses.sum(dtype=torch.float64))) / max(total_weight, 1e-12)
    if run.step_log is None:
        return
    row = run.step_log.add(
        StepNumbers(
            step=number,
            epoch=run.state.epochs_done + 1,
            position=run.state.samples_seen,
            loss=loss,
            lr=run.recipe.optim.peak_lr * coming.lr_scale,
            images=coming.size,
            time_s=time.monotonic() - coming.asked_at,
            wait_s=coming.wait_s,
        )
    )
    if row and run.tracker:
        run.tracker.log_step(row)


def _measure_step(run: Run, coming: Coming) -> None:
    run.meters.end_step(
        coming.size,
        run.state.samples_seen,
        run.state.skipped_steps,
        run.recipe.optim.peak_lr * coming.lr_scale,
        time.monotonic() - coming.asked_at,
        coming.wait_s,
    )


def _count(run: Run, step: Step, total_weight: float, length: int) -> None:
    """Record a step in the state; a skipped one only changes the position."""
    state = run.state
    update: dict[str, float] = {"samples_seen": state.samples_seen + length}
    if not step.moved:
        update["skipped_steps"] = state.skipped_steps + 1
    if step.left_out:
        run.guard.save()
        run.guard.forget()
    else:
        update["weight_sum"] = state.weight_sum + total_weight
        run.loss_here += step.losses.sum(dtype=torch.float64)
    run.state = state.model_copy(update=update)


def settle(run: Run) -> None:
    """Add the losses of all ranks to the state; every rank calls it.

    Raises:
        ShardError: The last step's loss, or a weight, is not finite; the state is then useless.
    """
    if run.ranks.agree(float(run.guard.is_bad() or not run.engine.has_finite_weights()))[0]:
        _refuse_nonfinite(run)
    total = float(run.ranks.sum(run.loss_here))
    run.state = run.state.model_copy(update={"loss_sum": run.state.loss_sum + total})
    run.loss_here.zero_()


def _refuse_nonfinite(run: Run) -> None:
    words = "; ".join(filter(None, run.ranks.gather(run.guard.save())))
    words = words or f"after {run.state.samples_seen:,} samples a weight is not finite although all losses were"
    raise ShardError(
        f"{words}: training diverged or a picture is bad. Lower optim.peak_lr or set optim.clip_norm, look at the "
        f"saved pictures, or set step.on_nan=skip; the snapshots in {run.folder.path} are from earlier steps"
    )


def save(run: Run) -> None:
    """Save the state; every rank writes its ledger rows before the snapshot is published."""
    if run.ledger:
        run.ledger.flush(run.state.samples_seen)
        run.ranks.barrier()
    if run.ranks.is_first:
        run.folder.save_file.unlink(missing_ok=True)
        run.store.save(run.state, run.engine)
    run.saved_at = time.monotonic()
    run.meters.save()
