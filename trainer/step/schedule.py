"""Learning rate as a pure function of samples seen, so that any restart resumes exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from shards.cli.table import load_builder
from trainer.recipes.options.choice import select_taken
from trainer.recipes.options.schedule import SCHEDULES, ScheduleOptions

Share = float
"""Share of the peak learning rate, 0..1."""


class PlateauState(BaseModel):
    """State of a plateau schedule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    best: float | None = None
    """The best value so far."""
    epochs_without_better: int = 0
    """Epochs since the best one, or since the last reduction."""
    share: float = 1.0
    """Share of the peak learning rate, 0..1."""


@dataclass(frozen=True)
class Position:
    """The position of a run, in samples."""

    seen: int
    total: int
    per_epoch: int
    warmup: float
    """Samples of the warm-up."""
    plateau: PlateauState

    @property
    def epochs(self) -> float:
        """Epochs since the start of the run."""
        return self.seen / self.per_epoch

    @property
    def epochs_after_warmup(self) -> float:
        return max(0.0, self.seen - self.warmup) / self.per_epoch

    @property
    def progress(self) -> float:
        """Share of the run after warm-up that is done, 0..1."""
        return max(0.0, self.seen - self.warmup) / max(1.0, self.total - self.warmup)


def scale_lr(
    options: ScheduleOptions,
    samples_seen: int,
    total_samples: int,
    samples_per_epoch: int,
    plateau: PlateauState | None = None,
) -> float:
    """Return the share of the peak learning rate for the step that starts at `samples_seen`, 0..1.

    During warm-up the share rises linearly, multiplied by the schedule's own decay; the first step, where it would be
    0, gets one sample's worth instead. Schedules over the length of the run (cosine, polynomial, sgdr) start after
    warm-up; those that count epochs (step, multistep, exponential, natural_exp) start with the run. one_cycle has its
    own warm-up.

    plateau: State of schedules that use the metric; None before the first epoch was evaluated.

    >>> scale_lr(ScheduleOptions(name="cosine", warmup_frac=0.0), 500, 1000, 100)
    0.5
    """
    row = SCHEDULES[options.name]
    warmup = count_warmup(options, total_samples, samples_per_epoch)
    at = Position(samples_seen, total_samples, samples_per_epoch, warmup, plateau or PlateauState())
    share: Share = load_builder(row.builder)(at, **select_taken(options, row))
    rise = 1.0 if samples_seen >= warmup or not row.rises else min(1.0, max(samples_seen, 1) / warmup)
    return rise * share


def count_warmup(options: ScheduleOptions, total_samples: int, samples_per_epoch: int) -> float:
    """Return the number of samples of the warm-up."""
    if options.warmup_epochs is not None:
        return options.warmup_epochs * samples_per_epoch
    return options.warmup_frac * total_samples


def watch_metric(
    options: ScheduleOptions, state: PlateauState | None, value: float, *, lower_is_better: bool
) -> PlateauState | None:
    """Return the schedule's state after an epoch with metric `value`; None if it does not use the metric.

    state: State after the previous epochs; None if there are none.
    """
    row = SCHEDULES[options.name]
    if not row.watch:
        return None
    watched: PlateauState = load_builder(row.watch)(
        state or PlateauState(), value, lower_is_better, **select_taken(options, row)
    )
    return watched


# builders: the share of the peak at a position in the run


def follow_constant(_at: Position) -> Share:
    return 1.0


def follow_step(at: Position, step_epochs: float, gamma: float, staircase: bool) -> Share:
    return fall_exponentially(at.epochs / step_epochs, gamma, staircase)


def follow_multistep(at: Position, milestones: Sequence[float], gamma: float) -> Share:
    return fall_at_milestones(at.epochs, milestones, gamma)


def follow_exponential(at: Position, gamma: float, staircase: bool) -> Share:
    return fall_exponentially(at.epochs, gamma, staircase)


def follow_natural_exp(at: Position, gamma: float, staircase: bool) -> Share:
    return fall_exponentially(at.epochs, math.exp(-gamma), staircase)


def follow_cosine(at: Position, final_frac: float) -> Share:
    return _fall_to(final_frac, fall_by_cosine(at.progress))


def follow_sgdr(at: Position, first_epochs: float, mult: int, final_frac: float) -> Share:
    return _fall_to(final_frac, restart_cosine(at.epochs_after_warmup, first_epochs, mult))


def follow_polynomial(at: Position, power: float, final_frac: float) -> Share:
    return _fall_to(final_frac, fall_polynomially(at.progress, power))


def follow_plateau(at: Position, **_watched: float) -> Share:
    return at.plateau.share


def follow_one_cycle(at: Position, start_div: float, end_div: float) -> Share:
    """Return the share for one cycle; momentum is not cycled.

    Source: Smith and Topin 2019, Super-Convergence, in the form of torch's OneCycleLR (two phases, cosine).
    """
    start = 1 / start_div
    if at.seen < at.warmup:
        return 1 + (start - 1) * fall_by_cosine(at.seen / at.warmup)
    return _fall_to(start / end_div, fall_by_cosine(at.progress))


def _fall_to(final: float, left: float) -> Share:
    """Return the share for `left` in 1..0, where 1 is the peak and 0 the final share."""
    return final + (1 - final) * left


# curves


def fall_by_cosine(progress: float) -> float:
    """Return 1..0 for progress 0..1; 0 after it.

    Source: Loshchilov and Hutter 2017, SGDR, equation 5, without restart.
    """
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def restart_cosine(epochs: float, first_epochs: float, mult: int) -> float:
    """Return 1..0 in periods of `first_epochs`, then `mult` times as many, and so on; 1 at each restart.

    Source: Loshchilov and Hutter 2017, SGDR, equation 5.

    >>> [round(restart_cosine(epochs, 5, 2), 3) for epochs in (0, 2.5, 4.9, 5, 10, 15)]
    [1.0, 0.5, 0.001, 1.0, 0.5, 1.0]
    """
    if mult == 1:
        return fall_by_cosine(math.fmod(epochs, first_epochs) / first_epochs)
    start, length = 0.0, first_epochs
    while epochs >= start + length:
        start, length = start + length, length * mult
    return fall_by_cosine((epochs - start) / length)


def fall_polynomially(progress: float, power: float) -> float:
    """Return 1..0 for progress 0..1; 0 after it.

    Source: Chen et al. 2018, DeepLab, section 4.1, "poly".
    """
    return float((1 - min(1.0, progress)) ** power)


def fall_at_milestones(epochs: float, milestones: Sequence[float], gamma: float) -> float:
    """Return gamma to the power of the milestones that have been reached.

    >>> [round(fall_at_milestones(epochs, [30, 60], 0.1), 3) for epochs in (29.9, 30, 60)]
    [1.0, 0.1, 0.01]
    """
    return float(gamma ** sum(milestone <= epochs for milestone in milestones))


def fall_exponentially(steps: float, gamma: float, staircase: bool) -> float:
    """Return gamma ** steps, with whole steps only if `staircase`.

    Natural exponential decay, lr = base_lr * exp(-k * epoch), is gamma = exp(-k) with whole epochs as steps.

    >>> round(3e-4 * fall_exponentially(1.9, math.exp(-0.6), True), 9)
    0.000164643
    """
    return float(gamma ** (math.floor(steps) if staircase else steps))


# the metric


def update_plateau(
    state: PlateauState,
    value: float,
    lower_is_better: bool,
    factor: float,
    patience: int,
    threshold: float,
    final_frac: float,
) -> PlateauState:
    """Return the state after an epoch whose metric is `value`; NaN does not count as better.

    The share is multiplied by `factor` after more than `patience` epochs in a row without a better value, but not
    below `final_frac`. Better means by more than `threshold` times the best value.

    Source: torch's ReduceLROnPlateau with threshold_mode "rel".
    """
    if _is_better(value, state.best, threshold, lower_is_better):
        return PlateauState(best=value, share=state.share)
    waited = state.epochs_without_better + 1
    if waited <= patience:
        return state.model_copy(update={"epochs_without_better": waited})
    return PlateauState(best=state.best, share=max(state.share * factor, min(state.share, final_frac)))


def _is_better(value: float, best: float | None, threshold: float, lower_is_better: bool) -> bool:
    if best is None:
        return not math.isnan(value)
    if lower_is_better:
        return value < best * (1 - threshold)
    return value > best * (1 + threshold)
