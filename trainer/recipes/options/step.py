"""Options for computing a step."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from trainer.recipes.options.section import Section


class StepOptions(Section):
    """How a step is computed; with any choice the gradient is that of the global batch."""

    accumulate: int | Literal["auto"] = 1
    """Number of microbatches into which each rank splits its slice of a batch to save memory; auto finds the fewest
    that fit. BatchNorm normalises by microbatch; if microbatches hold one picture, it uses its stored statistics, which
    is logged, and an error for weights=none. If memory still runs out, the step is repeated with twice as many; with
    several ranks, all ranks restart with them from the last snapshot."""
    tf32: bool = True
    """On CUDA: allow TensorFloat-32 in float32 computations."""
    compile: bool = False
    """Compile the model with torch.compile, which takes minutes at the start but makes steps faster."""
    sync_batch_norm: bool = False
    """On CUDA: BatchNorm over the global batch instead of each rank's slice, so that the weights do not depend on
    num_ranks."""
    deterministic: bool = False
    """Use only deterministic algorithms, slower on CUDA; an operation without one is an error."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay per step of the weights' moving average (EMA), which is then evaluated and stored in the bundle; None is
    off."""
    on_nan: Literal["stop", "skip"] = "stop"
    """If a loss is not finite, end the run or skip the step; in both cases its pictures are saved."""

    @field_validator("accumulate", mode="before")
    @classmethod
    def _count_or_auto(cls, value: object) -> object:
        if value != "auto" and not (isinstance(value, int) and value >= 1):
            raise ValueError("must be a number of microbatches, 1 or more, or auto")
        return value
