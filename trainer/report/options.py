"""Options of `trainer.report`."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, get_args

from shards.cli.options import Location, Options

Split = Literal["train", "val", "test"]
SPLITS: Final[tuple[Split, ...]] = get_args(Split)


class ReportOptions(Options):
    """The run whose report is written again, and its content."""

    run_dir: Path
    """Folder of a finished run."""
    part: tuple[Split, ...] = ()
    """Splits to report, if they were evaluated; empty: all."""
    positive: str | None = None
    """Set the positive class, compute its metrics again, and store it with the run; None: unchanged."""
    data: Location | None = None
    """Location of the dataset, if it has moved."""
    images: bool = True
    """Show pictures of the dataset."""
