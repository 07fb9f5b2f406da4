"""Learning rate as a pure function of samples seen, so that any restart goes on exactly."""

from __future__ import annotations

import math

from trainer.options.optim import ScheduleOptions


def scale_lr(options: ScheduleOptions, samples_seen: int, total_samples: int, samples_per_epoch: int) -> float:
    """Return the share of the peak learning rate for the step that starts at `samples_seen`, 0..1.

    During warm-up it rises linearly; the step in which it would be 0 takes one sample's worth instead.

    >>> scale_lr(ScheduleOptions(name="cosine", warmup_frac=0.0), 500, 1000, 100)
    0.5
    """
    warmup = options.warmup_frac * total_samples
    if samples_seen < warmup:
        return min(1.0, max(samples_seen, 1) / warmup)
    if options.name == "constant":
        return 1.0
    if options.name == "step":
        return options.gamma ** math.floor(samples_seen / (options.step_epochs * samples_per_epoch))
    progress = (samples_seen - warmup) / max(1.0, total_samples - warmup)
    return options.final_frac + (1 - options.final_frac) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
