"""Options of `tune.report`."""

from __future__ import annotations

from pathlib import Path

from shards.cli.options import Options


class SweepReportOptions(Options):
    """Which sweep is reported."""

    sweep: Path
    """Folder of a sweep, `runs/NAME`."""
