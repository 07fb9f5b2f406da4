"""Options of an examination."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from shards.cli.options import Location, Options


class DoctorOptions(Options):
    """What is examined, and how long a node may take."""

    there_are: ClassVar[str] = "doctor has"

    address: str | None = None
    """HOST:PORT of a Ray cluster; `local` for this machine alone; None: RAY_ADDRESS, else the cluster here."""
    storage: Location | None = None
    """Folder, s3:// or gs:// that runs write to; every node writes a test file there, and removes it."""
    data: Location | None = None
    """Dataset that every node must see."""
    quick: bool = False
    """Leave out whatever measures bandwidth."""
    pairs: bool = False
    """Measure the network between each pair of nodes, also if there are many."""
    wandb: str | None = None
    """Address of the W&B server that runs report to; None: it is not asked."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Seconds within which a node must answer each question."""
