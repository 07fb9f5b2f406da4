"""How a step is computed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from trainer.recipes.options.section import Section


class StepOptions(Section):
    """How a step is computed; the gradient is that of the global batch whatever is chosen."""

    accumulate: int | Literal["auto"] = 1
    """Microbatches in which each rank computes its slice of a batch, one after the other, to save memory; auto finds
    the fewest that fit. BatchNorm sees microbatches, and keeps its statistics where these hold one picture: that is
    logged, and refused for weights=none. Where memory still runs out, a step is computed in twice as many; on several
    ranks all restart from the last snapshot with them."""
    tf32: bool = True
    """On CUDA: let float32 computations round to TensorFloat-32."""
    compile: bool = False
    """Compile the model with torch.compile, which costs minutes at the start and makes steps faster."""
    sync_batch_norm: bool = False
    """On CUDA: BatchNorm over the global batch instead of each rank's slice, so that weights do not depend on
    num_ranks."""
    deterministic: bool = False
    """Use deterministic algorithms only, slower on CUDA; an operation that has none is refused."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay per step of a running average of the weights, which is then evaluated and put into the bundle."""
    on_nan: Literal["stop", "skip"] = "stop"
    """On a loss that is not a finite number, end the run or skip the step; either way its pictures are saved."""

    @field_validator("accumulate", mode="before")
    @classmethod
    def _count_or_auto(cls, value: object) -> object:
        if value != "auto" and not (isinstance(value, int) and value >= 1):
            raise ValueError("a number of parts, 1 or more, or auto")
        return value
