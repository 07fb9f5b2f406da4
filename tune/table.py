"""The table of a sweep: a row a trial, as CSV and Markdown."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from shards.files import write_text
from trainer.launch import is_finished
from trainer.logbook import read_metrics
from tune.space import Trial

NOTE = (
    "Trials that ASHA stopped were trained for fewer epochs: their values do not compare with those of finished ones.\n"
    "One seed a trial: differences of a few pictures are chance.\n"
)


@dataclass(frozen=True)
class Row:
    """What came of a trial; `value` is the stop metric of its best epoch on the validation part."""

    trial: str
    levels: dict[str, str]
    status: str
    value: float
    best_epoch: int
    epochs: int
    train_s: float
    img_s: float


def read_rows(trials: list[Trial]) -> list[Row]:
    """Return the rows of the trials that have at least one epoch; finished ones first, the best on top."""
    rows = [row for trial in trials if (row := _read_row(trial)) is not None]
    sign = -1 if trials[0].recipe.stop.metric != "log_loss" else 1
    return sorted(rows, key=lambda row: (row.status != "finished", sign * row.value))


def _read_row(trial: Trial) -> Row | None:
    epochs = read_metrics(trial.recipe.run_dir)
    if not epochs:
        return None
    metric = f"val/{trial.recipe.stop.metric}"
    choose = min if trial.recipe.stop.metric == "log_loss" else max
    best = choose(epochs, key=lambda epoch: epoch[metric])
    seconds = sum(epoch["train/time_s"] for epoch in epochs)
    status = "finished" if is_finished(trial.recipe.run_dir) else "stopped by ASHA"
    pictures_s = epochs[-1]["samples_seen"] / max(seconds, 1e-9)
    return Row(trial.name, trial.levels, status, best[metric], best["epoch"], len(epochs), seconds, pictures_s)


def write_table(sweep_dir: Path, rows: list[Row], metric: str) -> None:
    """Write table.csv and table.md."""
    lines = tabulate(rows, metric)
    text = io.StringIO()
    csv.writer(text).writerows(lines)
    write_text(sweep_dir / "table.csv", text.getvalue())
    write_text(sweep_dir / "table.md", f"{format_markdown(lines)}\n{NOTE}")


def tabulate(rows: list[Row], metric: str) -> list[list[str]]:
    """Return header and cells."""
    factors = list(rows[0].levels) if rows else []
    header = [*factors, f"val {metric}", "best epoch", "epochs", "status", "train s", "pictures/s"]
    body = [
        [*row.levels.values(), f"{row.value:.4f}", str(row.best_epoch), str(row.epochs), row.status, *_tell_speed(row)]
        for row in rows
    ]
    return [header, *body]


def _tell_speed(row: Row) -> list[str]:
    return [f"{row.train_s:.0f}", f"{row.img_s:.0f}"]


def format_markdown(lines: list[list[str]]) -> str:
    """Return a Markdown table with aligned columns.

    >>> print(format_markdown([["a", "b"], ["1", "22"]]), end="")
    | a | b  |
    |---|----|
    | 1 | 22 |
    """
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    formatted = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([formatted[0], rule, *formatted[1:]]) + "\n"
