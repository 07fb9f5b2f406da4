"""TensorBoard behind one door: event files in the run's folder."""

from __future__ import annotations

import time
from pathlib import Path

from tensorboardX import SummaryWriter

FOLDER = "tensorboard"


class EventFiles:
    """Scalars of a run over its global steps. Each start of the run adds a file to the folder.

    Args:
        run_dir: Folder of the run.
        purge_step: What earlier starts wrote for this step and those after it counts no more.
    """

    def __init__(self, run_dir: Path, purge_step: int) -> None:
        # tensorboardX names files by the second, and would overwrite that of a start in the same second.
        suffix = f".{time.time_ns()}"
        self._writer = SummaryWriter(str(run_dir / FOLDER), purge_step=purge_step, filename_suffix=suffix)

    def write(self, numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Put on disk what was written so far."""
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
