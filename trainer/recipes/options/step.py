"""How a step is computed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from trainer.recipes.options.section import Section


class StepOptions(Section):
    """How a step is computed; the gradient is that of the global batch whatever is chosen."""

    accumulate: int | Literal["auto"] = 1
    """Parts in which each rank computes its slice of a batch, one after the other, for less memory; BatchNorm sees
    parts, and keeps its statistics where these are of one picture: that is logged, and refused for weights=none. auto
    finds the fewest that fit. Where memory runs out all the same, a step is computed in twice as many; on several ranks
    all begin anew from the last snapshot with them."""
    tf32: bool = True
    """CUDA: what is computed in float32 may round to TensorFloat-32."""
    compile: bool = False
    """Compile the model with torch.compile: minutes at the start for faster steps."""
    sync_batch_norm: bool = False
    """CUDA: BatchNorm over the global batch instead of each rank's slice: weights do not depend on num_ranks."""
    deterministic: bool = False
    """Take deterministic algorithms alone, slower on CUDA; without one, an operation is refused."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay per step of an average of the weights, which is then what is judged and put into the bundle."""
    on_nan: Literal["stop", "skip"] = "stop"
    """A loss that is not a finite number ends the run, or its step is left out; either way its pictures are saved."""

    @field_validator("accumulate", mode="before")
    @classmethod
    def _count_or_auto(cls, value: object) -> object:
        if value != "auto" and not (isinstance(value, int) and value >= 1):
            raise ValueError("a number of parts, 1 or more, or auto")
        return value
