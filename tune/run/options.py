"""Options of `tune.run` besides recipe and space."""

from __future__ import annotations

from pydantic import Field, model_validator

from shards.cli.options import Options
from shards.errors import UsageError


class SweepOptions(Options):
    """How much of a sweep a command runs."""

    seeds: int | None = Field(default=None, ge=2)
    """Runs of each confirmed variant; None: as the space says. More than before adds runs to a finished sweep."""
    screen_only: bool = False
    """End after the screen; the test split is not opened."""
    confirm_only: bool = False
    """Confirm what the screen has so far, and train no more of it."""
    extend: bool = False
    """Take a changed space for the same sweep: trials that have not changed are kept."""

    @model_validator(mode="after")
    def _one_part(self) -> SweepOptions:
        if self.screen_only and self.confirm_only:
            raise UsageError("--screen-only and --confirm-only leave nothing to run; give one of them")
        return self
