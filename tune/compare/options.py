"""What `tune.compare` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import model_validator

from shards.cli.options import Options
from shards.errors import UsageError


class CompareOptions(Options):
    """Variants by where their runs are, the one that the others are compared with, and the metric.

    Raises:
        UsageError: A variant without a place, or a single one.
    """

    variant: Mapping[str, tuple[str, ...]]
    """Name of each variant -> patterns of run folders, or of predictions.parquet files, one for each seed."""
    baseline: str | None = None
    """The variant that the others are compared with; None: the first one."""
    metric: str = "accuracy"
    """accuracy, log_loss, balanced_accuracy, macro_f1 or auroc."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.variant) < 2:
            raise UsageError(
                "a comparison needs a baseline and another variant; give --variant NAME=GLOB twice or more"
            )
        return self
