"""The numbers of a run: metrics.jsonl has all rows, progress.json the current state."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shards.files.atomic import append_text, write_text

METRICS, PROGRESS = "metrics.jsonl", "progress.json"
PREDICTED = "val/predicted"
"""Text of a row: how many validation samples each class is predicted for, in the order of the classes."""
_PROGRESS_EVERY_S = 0.5

Numbers = dict[str, float]


class Logbook:
    """Writes metrics.jsonl and progress.json, on rank 0 only."""

    def __init__(self, run_dir: Path, epochs_done: int) -> None:
        self._run_dir = run_dir
        self._shown_at = 0.0
        # Rows after the snapshot that the run resumes from will be written again. They are cut by epochs, not samples:
        # the snapshot may be at the end of an epoch that was not evaluated yet.
        kept = [row for row in read_metrics(run_dir) if row["epoch"] <= epochs_done]
        write_text(run_dir / METRICS, "".join(json.dumps(row) + "\n" for row in kept))

    def write(self, numbers: Numbers, words: dict[str, str]) -> None:
        """Append one row; every row has its epoch. words: text values, such as the verdict on the feed."""
        append_text(self._run_dir / METRICS, json.dumps(numbers | words) + "\n")

    def show(self, samples_seen: int, total: int, number: Callable[[], Numbers]) -> Numbers | None:
        """Write the run's position, at most twice a second, and return the numbers if they were written.

        `number` is called only then, because it may wait for the device.
        """
        now = time.monotonic()
        if now - self._shown_at < _PROGRESS_EVERY_S and samples_seen != total:
            return None
        self._shown_at, numbers = now, number()
        progress = {"samples_seen": samples_seen, "total": total, "numbers": numbers}
        write_text(self._run_dir / PROGRESS, json.dumps(progress))
        return numbers


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl; a last row truncated by a kill is left out."""
    return read_rows(run_dir / METRICS)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON lines file, up to the first truncated one; [] if there is no file."""
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def read_progress(run_dir: Path) -> dict[str, Any]:
    """Return samples_seen, total and numbers of a run; zeros if it has not started."""
    path = run_dir / PROGRESS
    if not path.is_file():
        return {"samples_seen": 0, "total": 0, "numbers": {}}
    progress: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return progress
