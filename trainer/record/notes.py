"""notes.jsonl: what was logged of a run and is worth reading when it is over, whatever it was shown on."""

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
    """time: of the machine that wrote it, YYYY-MM-DD HH:MM:SS; level: info, warning or error; text: a sentence."""

    time: str
    level: str
    text: str


@contextlib.contextmanager
def keep_notes(run_dir: Path) -> Iterator[None]:
    """Have notes go to the run's file while the block runs; each once, however often the run is resumed.

    Command and rank 0 both keep theirs: in one folder, or on two machines that share none.
    """
    with contextlib.ExitStack() as handlers:
        if logging.lastResort is not None and not logging.getLogger(__name__).hasHandlers():
            # Python prints warnings that have no handler, and ours must not keep it from that.
            handlers.enter_context(handled_by(logging.lastResort))
        handlers.enter_context(handled_by(_Keeper(run_dir)))
        yield


def read_notes(run_dir: Path) -> list[Note]:
    """Return the notes of a run in the order in which they came; none of a run that an earlier version made."""
    return [Note(**row) for row in read_rows(run_dir / NOTES)]


class _Keeper(logging.Handler):
    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self._run_dir = run_dir

    def emit(self, record: logging.LogRecord) -> None:
        if not is_note(record):
            return
        with contextlib.suppress(OSError):  # a full disk ends the run where it saves its state, and with a sentence
            text = record.getMessage()
            if any(note.text == text for note in read_notes(self._run_dir)):
                return
            note = Note(time.strftime("%Y-%m-%d %H:%M:%S"), record.levelname.lower(), text)
            with open(self._run_dir / NOTES, "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(note)) + "\n")
