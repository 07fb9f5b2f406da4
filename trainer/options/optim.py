"""The optimizer, and the learning rate over the run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainer.options.section import Section


class OptimOptions(Section):
    """The optimizer."""

    name: Literal["sgd", "adamw"] = "adamw"
    """sgd is with Nesterov momentum."""
    peak_lr: float = Field(default=1e-3, gt=0)
    """Learning rate after warm-up."""
    weight_decay: float = Field(default=0.05, ge=0)
    """Not applied to biases, norms and other tensors of one dimension."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """sgd only."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest gradient norm; None does not clip."""


class ScheduleOptions(Section):
    """Learning rate as a function of samples seen."""

    name: Literal["constant", "cosine", "step"] = "cosine"
    """step: multiplied by `gamma` every `step_epochs`."""
    warmup_frac: float = Field(default=0.1, ge=0, lt=1)
    """Share of the run in which the rate rises linearly from 0."""
    final_frac: float = Field(default=0.0, ge=0, le=1)
    """cosine only: share of the peak that is left at the end."""
    step_epochs: float = Field(default=10.0, gt=0)
    """step only."""
    gamma: float = Field(default=0.1, gt=0, lt=1)
    """step only."""
