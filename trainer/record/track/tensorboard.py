"""TensorBoard event files in the run folder; the only module that uses tensorboardX."""

from __future__ import annotations

import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

FOLDER = "tensorboard"
_FLUSH_S = 60.0


class EventFiles:
    """Scalars of a run by global step. Each start of the run adds a file to the folder.

    tensorboardX's SummaryWriter writes in a thread that dies on a full disk, after which the run would wait forever.

    Args:
        run_dir: Folder of the run.
        purge_step: Discard what earlier starts wrote for this step and later ones.
    """

    def __init__(self, run_dir: Path, purge_step: int) -> None:
        folder = run_dir / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        # tensorboardX names files by the second, so starts within one second would overwrite each other.
        self._writer = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        self._flushed_at = time.monotonic()
        self._add(Event(session_log=SessionLog(status=SessionLog.START)), purge_step)

    def write(self, numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._add(Event(summary=scalar(name, value)), step)
        if time.monotonic() - self._flushed_at > _FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write everything so far to disk."""
        self._flushed_at = time.monotonic()
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _add(self, event: Event, step: int) -> None:
        event.step, event.wall_time = step, time.time()
        self._writer.write_event(event)
