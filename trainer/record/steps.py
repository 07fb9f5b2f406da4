"""Numbers of every n-th step: steps.jsonl."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.files.atomic import append_text, write_text
from trainer.record.logbook import Numbers, read_rows

STEPS = "steps.jsonl"


@dataclass(frozen=True)
class StepNumbers:
    """The numbers of one global step.

    step: Its number in the run, from 1; epoch: from 1; position: samples seen after it; loss: of its global batch;
    lr: learning rate; images: samples of the global batch; time_s: its duration, including waiting; wait_s: time
    waiting for its batch.
    """

    step: int
    epoch: int
    position: int
    loss: float
    lr: float
    images: int
    time_s: float
    wait_s: float


class StepLog:
    """A row for every step whose number is a multiple of `every`. Written by rank 0 only.

    Args:
        run_dir: Folder of the run.
        every: Steps between rows, at least 1.
        position: Samples seen in the snapshot that the run resumes from; rows after it will be written again.
    """

    def __init__(self, run_dir: Path, every: int, position: int) -> None:
        self._path = run_dir / STEPS
        self._every = every
        self._images, self._time_s, self._wait_s = 0, 0.0, 0.0
        kept = [row for row in read_rows(self._path) if row["samples_seen"] <= position]
        write_text(self._path, "".join(json.dumps(row) + "\n" for row in kept))

    def add(self, numbers: StepNumbers) -> Numbers | None:
        """Add a step; return the row if one was due and written.

        Speed and share of waiting cover the steps since the previous row, or since the start.
        """
        self._images += numbers.images
        self._time_s += numbers.time_s
        self._wait_s += numbers.wait_s
        if numbers.step % self._every:
            return None
        time_s = max(self._time_s, 1e-9)
        row: Numbers = {
            "step": numbers.step,
            "epoch": numbers.epoch,
            "samples_seen": numbers.position,
            "step/loss": numbers.loss,
            "step/lr": numbers.lr,
            "step/img_s": self._images / time_s,
            "step/wait_frac": self._wait_s / time_s,
        }
        self._images, self._time_s, self._wait_s = 0, 0.0, 0.0
        append_text(self._path, json.dumps(row) + "\n")
        return row


def read_steps(run_dir: Path) -> list[dict[str, Any]]:
    """Return the rows of steps.jsonl; [] if it was not enabled."""
    return read_rows(run_dir / STEPS)


def count_steps(samples_seen: int, samples_per_epoch: int, batch_size_global: int) -> int:
    """Return the number of global steps up to a position; the last step of each epoch may be smaller.

    >>> count_steps(100, 100, 30), count_steps(130, 100, 30)
    (4, 5)
    """
    epochs, rest = divmod(samples_seen, samples_per_epoch)
    return epochs * -(-samples_per_epoch // batch_size_global) + -(-rest // batch_size_global)
