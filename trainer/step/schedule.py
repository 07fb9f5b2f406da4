"""Learning rate as a pure function of samples seen, so that any restart goes on exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from trainer.recipes.options.schedule import ScheduleOptions


class PlateauState(BaseModel):
    """What a plateau schedule remembers of the epochs so far."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    best: float | None = None
    """The best value so far."""
    epochs_without_better: int = 0
    """Since the best one, or since the last fall."""
    share: float = 1.0
    """Share of the peak learning rate, 0..1."""


def scale_lr(
    options: ScheduleOptions,
    samples_seen: int,
    total_samples: int,
    samples_per_epoch: int,
    plateau: PlateauState | None = None,
) -> float:
    """Return the share of the peak learning rate for the step that starts at `samples_seen`, 0..1.

    During warm-up the share rises linearly (times what the schedule falls meanwhile); the step in which it would be 0
    takes one sample's worth instead. Schedules of a run's length (cosine, polynomial, sgdr) begin when warm-up is over,
    those that count epochs (step, multistep, exponential, natural_exp) with the run. one_cycle is a warm-up of its own.

    plateau: plateau only; None before the first epoch was judged.

    >>> scale_lr(ScheduleOptions(name="cosine", warmup_frac=0.0), 500, 1000, 100)
    0.5
    """
    warmup = count_warmup(options, total_samples, samples_per_epoch)
    if options.name == "one_cycle":
        return _follow_cycle(options, samples_seen, warmup, total_samples)
    rise = 1.0 if samples_seen >= warmup else min(1.0, max(samples_seen, 1) / warmup)
    if options.name == "plateau":
        return rise * (plateau.share if plateau else 1.0)
    after = max(0.0, samples_seen - warmup)
    if options.name in ("cosine", "polynomial", "sgdr"):
        final = _given(options.final_frac)
        left = _shape(options, after / samples_per_epoch, after / max(1.0, total_samples - warmup))
        return rise * (final + (1 - final) * left)
    return rise * _fall(options, samples_seen / samples_per_epoch)


def count_warmup(options: ScheduleOptions, total_samples: int, samples_per_epoch: int) -> float:
    """Return the samples during which the rate rises."""
    if options.warmup_epochs is not None:
        return options.warmup_epochs * samples_per_epoch
    return options.warmup_frac * total_samples


def _shape(options: ScheduleOptions, epochs: float, progress: float) -> float:
    """Return 1..0, what is left between peak and final share after a part of what follows warm-up."""
    if options.name == "sgdr":
        return restart_cosine(epochs, _given(options.first_epochs), int(_given(options.mult)))
    if options.name == "polynomial":
        return fall_polynomially(progress, _given(options.power))
    return fall_by_cosine(progress)


def _fall(options: ScheduleOptions, epochs: float) -> float:
    """Return the factor of the schedules that count epochs from the run's start."""
    if options.name == "constant":
        return 1.0
    gamma = _given(options.gamma)
    if options.name == "multistep":
        return fall_at_milestones(epochs, options.milestones or [], gamma)
    if options.name == "step":
        return fall_exponentially(epochs / _given(options.step_epochs), gamma, bool(options.staircase))
    if options.name == "natural_exp":
        return fall_exponentially(epochs, math.exp(-gamma), bool(options.staircase))
    return fall_exponentially(epochs, gamma, bool(options.staircase))


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
    """Return gamma ** steps, of whole steps alone on a staircase.

    Source: lr = base_lr * exp(-k * epoch), natural exponential decay, is gamma = exp(-k) with whole epochs as steps.

    >>> round(3e-4 * fall_exponentially(1.9, math.exp(-0.6), True), 9)
    0.000164643
    """
    return float(gamma ** (math.floor(steps) if staircase else steps))


def _follow_cycle(options: ScheduleOptions, samples_seen: int, warmup: float, total: int) -> float:
    """Return the share of one cycle: up by half a cosine, down by another to far below the start; no momentum's cycle.

    Source: Smith and Topin 2019, Super-Convergence, in the form of torch's OneCycleLR (two phases, cosine).
    """
    start = 1 / _given(options.start_div)
    if samples_seen < warmup:
        return 1 + (start - 1) * fall_by_cosine(samples_seen / warmup)
    end = start / _given(options.end_div)
    return end + (1 - end) * fall_by_cosine((samples_seen - warmup) / max(1.0, total - warmup))


def update_plateau(
    options: ScheduleOptions, state: PlateauState, value: float, *, lower_is_better: bool
) -> PlateauState:
    """Return the state after an epoch whose metric is `value`; a value that is no number is not better.

    The share is multiplied by `factor` after more than `patience` epochs in a row without a better value, but not
    below `final_frac`. Better means by more than `threshold` times the best value.

    Source: torch's ReduceLROnPlateau with threshold_mode "rel".
    """
    if _is_better(value, state.best, _given(options.threshold), lower_is_better):
        return PlateauState(best=value, share=state.share)
    waited = state.epochs_without_better + 1
    if waited <= _given(options.patience):
        return state.model_copy(update={"epochs_without_better": waited})
    share = max(state.share * _given(options.factor), min(state.share, _given(options.final_frac)))
    return PlateauState(best=state.best, share=share)


def _is_better(value: float, best: float | None, threshold: float, lower_is_better: bool) -> bool:
    if best is None:
        return not math.isnan(value)
    if lower_is_better:
        return value < best * (1 - threshold)
    return value > best * (1 + threshold)


def _given(value: float | None) -> float:
    assert value is not None  # ScheduleOptions fills in what its schedule uses
    return value
