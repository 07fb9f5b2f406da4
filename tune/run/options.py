"""Options of `tune.run` besides recipe and space."""

from __future__ import annotations

from pydantic import Field, model_validator

from shards.cli.options import Options
from shards.errors import UsageError
from trainer.recipes.options.section import Size
from tune.space.options import Space


class SweepOptions(Options):
    """How much of a sweep a command runs."""

    seeds: int | None = Field(default=None, ge=2)
    """Runs of each confirmed variant; None: as the space says. More than before adds runs to a finished sweep."""
    screen_only: bool = False
    """End after the screen; the test split is not opened."""
    confirm_only: bool = False
    """Confirm what the screen has so far, and train no more of it."""
    trials: int | None = Field(default=None, ge=1)
    """Number of trials of a search; None: as the space says."""
    max_hours: float | None = Field(default=None, gt=0)
    """Hours after which the trials save their states and the command ends; the same command resumes."""
    max_disk: Size | None = Field(default=None, gt=0)
    """Bytes, or a size such as 20GiB, that the folder of the sweep may take until it is stopped likewise."""
    extend: bool = False
    """Take a changed space for the same sweep: trials that have not changed are kept."""

    @model_validator(mode="after")
    def _one_part(self) -> SweepOptions:
        if self.screen_only and self.confirm_only:
            raise UsageError("--screen-only and --confirm-only leave nothing to run; give one of them")
        return self

    def change(self, space: Space) -> Space:
        """Return the space with the options that are about it.

        Raises:
            UsageError: --trials is given for a space whose trials are not drawn.
        """
        if self.trials is None:
            return space
        if not space.search or space.searcher == "grid":
            raise UsageError(
                "--trials is for a search with searcher: random or tpe, and this space is not drawn; leave it out"
            )
        return space.model_copy(update={"trials": self.trials})
