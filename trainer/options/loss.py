"""What is minimised."""

from __future__ import annotations

from pydantic import Field

from trainer.options.section import Section


class LossOptions(Section):
    """Cross-entropy."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target spread over all classes."""
    sample_weights: bool = True
    """Use the weights that the dataset gives its samples."""
