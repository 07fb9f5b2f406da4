"""Options of `tune.dashboard`."""

from __future__ import annotations

from pathlib import Path

from shards.cli.options import Options


class DashboardOptions(Options):
    """Which sweep gets a dashboard."""

    sweep: Path
    """Folder of a sweep, `runs/NAME`."""
