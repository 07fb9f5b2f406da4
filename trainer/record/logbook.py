"""The numbers of a run: metrics.jsonl for ever, progress.json for now."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shards.files.atomic import append_text, write_text

METRICS, PROGRESS = "metrics.jsonl", "progress.json"
_PROGRESS_EVERY_S = 0.5

Numbers = dict[str, float]


class Logbook:
    """Written by rank 0 alone."""

    def __init__(self, run_dir: Path, epochs_done: int) -> None:
        self._run_dir = run_dir
        self._shown_at = 0.0
        # Rows after the snapshot that the run goes on from will be written again. Epochs decide, not samples: the
        # snapshot may stand at the end of an epoch that was not judged yet.
        kept = [row for row in read_metrics(run_dir) if row["epoch"] <= epochs_done]
        write_text(run_dir / METRICS, "".join(json.dumps(row) + "\n" for row in kept))

    def write(self, numbers: Numbers, words: dict[str, str]) -> None:
        """Append one row; every row has its epoch. words: what is no number, such as the verdict on the feed."""
        append_text(self._run_dir / METRICS, json.dumps(numbers | words) + "\n")

    def show(self, samples_seen: int, total: int, number: Callable[[], Numbers]) -> Numbers | None:
        """Write how far the run is, at most twice a second, and return the numbers that were written, if any.

        `number` is asked then alone: it may wait for the device.
        """
        now = time.monotonic()
        if now - self._shown_at < _PROGRESS_EVERY_S and samples_seen != total:
            return None
        self._shown_at, numbers = now, number()
        progress = {"samples_seen": samples_seen, "total": total, "numbers": numbers}
        write_text(self._run_dir / PROGRESS, json.dumps(progress))
        return numbers


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl; a last row that was cut by a kill is left out."""
    return read_rows(run_dir / METRICS)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines, up to the first that is cut; none where there is no file."""
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def read_progress(run_dir: Path) -> dict[str, Any]:
    """Return samples_seen, total and numbers of a run; zeros where it has not started."""
    path = run_dir / PROGRESS
    if not path.is_file():
        return {"samples_seen": 0, "total": 0, "numbers": {}}
    progress: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return progress
