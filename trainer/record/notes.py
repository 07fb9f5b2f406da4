"""notes.jsonl: log messages of a run that are worth reading after it ends."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from shards.cli.messages import handled_by, is_note
from trainer.record.logbook import read_rows

NOTES = "notes.jsonl"


@dataclass(frozen=True)
class Note:
    """time: on the machine that wrote it, YYYY-MM-DD HH:MM:SS; level: info, warning or error; text: a sentence."""

    time: str
    level: str
    text: str


@contextlib.contextmanager
def keep_notes(run_dir: Path) -> Iterator[None]:
    """Write notes to the run's file while the block runs; each text once, even if the run is resumed.

    The command and rank 0 both write notes, in the same folder or on separate machines.
    """
    with contextlib.ExitStack() as handlers:
        if logging.lastResort is not None and not logging.getLogger(__name__).hasHandlers():
            # Python prints warnings only if there is no handler; adding ours must not suppress that.
            handlers.enter_context(handled_by(logging.lastResort))
        handlers.enter_context(handled_by(_Keeper(run_dir)))
        yield


def read_notes(run_dir: Path) -> list[Note]:
    """Return the notes of a run in order; [] for runs of earlier versions."""
    return [Note(**row) for row in read_rows(run_dir / NOTES)]


class _Keeper(logging.Handler):
    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self._run_dir = run_dir

    def emit(self, record: logging.LogRecord) -> None:
        if not is_note(record):
            return
        with contextlib.suppress(OSError):  # a full disk stops the run when it saves its state, with a proper error
            text = record.getMessage()
            if any(note.text == text for note in read_notes(self._run_dir)):
                return
            note = Note(time.strftime("%Y-%m-%d %H:%M:%S"), record.levelname.lower(), text)
            with open(self._run_dir / NOTES, "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(note)) + "\n")
