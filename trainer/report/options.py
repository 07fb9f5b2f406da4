"""What `trainer.report` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, get_args

from shards.cli.options import Location, Options

Split = Literal["train", "val", "test"]
SPLITS: Final[tuple[Split, ...]] = get_args(Split)


class ReportOptions(Options):
    """Whose report is written anew, and what it shows."""

    run_dir: Path
    """Folder of a finished run."""
    part: tuple[Split, ...] = ()
    """Splits that the report is about, where they were evaluated; none: all."""
    positive: str | None = None
    """Look for this class: count its figures anew and keep it as the run's; None: as it was."""
    data: Location | None = None
    """The dataset, where it is no longer where the recipe says."""
    images: bool = True
    """Show pictures of the dataset."""
