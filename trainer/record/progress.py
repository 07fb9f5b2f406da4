"""Log the progress of a run: a line per epoch and stage, and one per minute in between, on rank 0."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from shards.cli.progress import LINE_EVERY_S, Clock, describe_duration, describe_share
from trainer.recipes.recipe import Recipe
from trainer.record.logbook import Numbers
from trainer.record.pace import Pace
from trainer.record.snapshot import RunState

TICK_S = 0.5
"""Interval for checking the time since the last line."""
_SHORT_WAIT_S = 2.0
"""Shorter waits are a normal part of every step."""

logger = logging.getLogger(__name__)

Advance = Callable[[int], None]
"""Function that takes the number of pictures done in a stage."""


@dataclass(frozen=True)
class Size:
    """Numbers of pictures: of a training epoch, of its validation, and of the final evaluations."""

    epoch: int
    val: int
    end: int


@dataclass(frozen=True)
class _Doing:
    """An activity other than ordinary steps, its number of pictures, and its start time."""

    name: str
    total: int | None
    since: float


class RunProgress:
    """The position and pace of a run.

    Args:
        recipe: The run's recipe.
        speaks: Whether this rank logs.
        every_s: Longest time without a line.
        clock: Seconds.
    """

    def __init__(
        self,
        recipe: Recipe,
        speaks: bool = True,
        every_s: float = LINE_EVERY_S,
        clock: Clock = time.monotonic,
    ) -> None:
        self._recipe, self._speaks, self._every_s, self._clock = recipe, speaks, every_s, clock
        self._metric = f"val {recipe.stop.metric.replace('_', ' ')}"
        self._lock = threading.Lock()
        self._began = self._said_at = clock()
        self._doing: _Doing | None = _Doing(f"preparing data and {recipe.model}", None, self._began)
        self._done = 0
        self._since = "so far"
        self._size: Size | None = None
        """None before and after training."""
        self._epoch = self._seen = 0
        self._loss: float | None = None
        self._value: float | None = None
        self._best, self._best_epoch, self._without_better = 0.0, 0, 0
        self._pace = Pace()

    def begin(self, state: RunState, size: Size, value: float | None, who: str) -> None:
        """Log what is trained, or where the run resumes.

        Args:
            state: State of the run.
            size: Its numbers of pictures.
            value: The stop metric of the last epoch that was evaluated, if there is one.
            who: The model and the devices.
        """
        self._size, self._seen, self._epoch, self._doing = size, state.samples_seen, state.epochs_done, None
        if state.best is not None:
            self._value, self._without_better = value, state.epochs_without_better
            self._best, self._best_epoch = state.best.value, state.best.epoch
        epochs, total = self._recipe.epochs, self._recipe.epochs * size.epoch
        if state.samples_seen:
            self._since = "since it resumed"
            at = f"{state.samples_seen:,} of {total:,} pictures ({100 * state.samples_seen // total} %)"
            self._say(f"{self._recipe.name}: resuming {who} after {state.epochs_done:,} of {epochs:,} epochs, {at}")
        else:
            self._say(f"{self._recipe.name}: training {who}, {_count(epochs, 'epoch')} of {size.epoch:,} pictures")

    def begin_epoch(self, epoch: int) -> None:
        """Record that epoch `epoch`, from 0, or the rest of it, begins."""
        self._epoch, self._loss = epoch, None

    def wait_for_batch(self) -> None:
        self._enter("waiting for data")

    def take_step(self, first: bool) -> None:
        """Record that a batch has arrived; first: the first of this start or epoch, which may compile or allocate."""
        self._doing = _Doing("taking the first step", None, self._clock()) if first else None

    def end_step(self, samples_seen: int) -> None:
        self._doing, self._seen = None, samples_seen
        self._pace.step(samples_seen, self._clock())

    def show_loss(self, loss: float) -> None:
        """Record the epoch's mean loss so far."""
        self._loss = loss

    @contextlib.contextmanager
    def validating(self) -> Iterator[Advance]:
        """Yield a function that takes the number of validation pictures done."""
        started, pictures = self._clock(), self._size.val if self._size else 0
        self._enter("validating", pictures)
        yield self._advance
        self._pace.validate(pictures, self._clock() - started)
        self._doing = None

    def end_epoch(self, numbers: Numbers, without_better: int) -> None:
        """Log the result of an epoch; without_better: epochs since the best one."""
        self._epoch, self._seen, self._loss = int(numbers["epoch"]), int(numbers["samples_seen"]), numbers["train/loss"]
        self._value, self._without_better = numbers[f"val/{self._recipe.stop.metric}"], without_better
        self._best, self._best_epoch = numbers["val/best"], int(numbers["val/best_epoch"])
        self._say(f"{self._name_epoch(self._epoch)}: {self._describe_numbers()}; {self._describe_times()}")

    def end_training(self) -> None:
        """Log if the run stops before its last epoch."""
        epochs, patience = self._recipe.epochs, self._recipe.stop.patience
        if patience is not None and self._without_better >= patience and self._epoch < epochs:
            self._say(
                f"stopped early after {self._epoch:,} of {_count(epochs, 'epoch')}: "
                f"{self._without_better:,} without a better {self._metric}"
            )
        self._size = None
        self._enter("finishing")

    @contextlib.contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Advance]:
        """Log that a stage other than training begins; yield a function that takes the number of pictures done."""
        self._enter(name, total)
        self._say(name if total is None else f"{name}: {total:,} pictures")
        yield self._advance
        self._enter("finishing")

    def tick(self) -> None:
        """Log the progress if the next tick would exceed the longest time without a line."""
        if self._clock() - self._said_at + TICK_S > self._every_s:
            self._say(self._describe())

    def _enter(self, name: str, total: int | None = None) -> None:
        self._done = 0
        self._doing = _Doing(name, total, self._clock())

    def _advance(self, done: int) -> None:
        self._done = done

    def _say(self, line: str) -> None:
        with self._lock:
            self._said_at = self._clock()
            if self._speaks:
                logger.info("%s", line)

    def _describe(self) -> str:
        """Return the current progress in words."""
        doing, size = self._doing, self._size
        if size is None:
            return self._describe_stage(doing)
        share = f"{100 * (self._seen - self._epoch * size.epoch) // size.epoch} %"
        where = [self._name_epoch(self._epoch + 1)]
        if doing is None or self._clock() - doing.since < _SHORT_WAIT_S:
            where.append(share)
        elif doing.total is None:
            where += [share, doing.name]
        else:
            where.append(describe_share(doing.name, self._done, doing.total).replace(":", ""))
        numbers = self._describe_numbers()
        return f"{', '.join(where)}: {numbers}{'; ' if numbers else ''}{self._describe_times()}"

    def _describe_stage(self, doing: _Doing | None) -> str:
        if doing is None:
            return f"{describe_duration(self._clock() - self._began)} so far"
        spent_s = self._clock() - doing.since
        so_far = f"{describe_duration(spent_s)} so far"
        if doing.total is None:
            return f"{doing.name}; {so_far}"
        if self._done:
            left_s = spent_s / self._done * (doing.total - self._done)
            so_far += f", about {describe_duration(left_s)} left"
        return f"{describe_share(doing.name, self._done, doing.total)}; {so_far}"

    def _name_epoch(self, number: int) -> str:
        return f"epoch {number:,}/{self._recipe.epochs:,}"

    def _describe_numbers(self) -> str:
        words = [] if self._loss is None else [f"loss {self._loss:.4g}"]
        if self._value is not None:
            words.append(f"{self._metric} {self._value:.4f} ({self._describe_best()})")
        return ", ".join(words)

    def _describe_best(self) -> str:
        if not self._without_better:
            return "best"
        best = f"best {self._best:.4f} in epoch {self._best_epoch:,}"
        patience = self._recipe.stop.patience
        return best if patience is None else f"{best}; {self._without_better:,} of {patience:,} without a better one"

    def _describe_times(self) -> str:
        spent = f"{describe_duration(self._clock() - self._began)} {self._since}"
        left_s = self._estimate_left()
        if left_s is None:
            return spent
        about = "about" if self._recipe.stop.patience is None else "at most"
        return f"{spent}, {about} {describe_duration(left_s)} left"

    def _estimate_left(self) -> float | None:
        """Return the seconds until the last evaluation is done, without early stopping."""
        if self._size is None:
            return None
        epochs = self._recipe.epochs
        val = (epochs - self._epoch) * self._size.val + self._size.end
        return self._pace.estimate(epochs * self._size.epoch - self._seen, val)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
