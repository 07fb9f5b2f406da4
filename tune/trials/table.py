"""The table of a screen: a row per trial, as CSV and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.files.atomic import write_text
from trainer.record.logbook import read_metrics
from tune.space.variants import Trial
from tune.trials.trial import FAILURE_FILE

NOTE = (
    "Trials that were stopped early were trained for fewer epochs: their values cannot be compared with those of "
    "finished ones.\nThere is one seed per trial: differences of a few pictures are chance.\n"
)


FINISHED, STOPPED, FAILED = "finished", "stopped early", "failed"


@dataclass(frozen=True)
class Row:
    """The result of a trial; `value` is the stop metric of its best epoch on the validation split."""

    trial: str
    variant: str
    levels: dict[str, str]
    status: str
    value: float
    best_epoch: int
    epochs: int
    train_s: float
    img_s: float


@dataclass(frozen=True)
class Table:
    """The rows, finished ones first and the best on top; failures: why other trials did not finish, by name."""

    metric: str
    rows: list[Row]
    failures: dict[str, str]

    @property
    def best(self) -> Row | None:
        """The best finished row; None if no trial finished."""
        return self.rows[0] if self.rows and self.rows[0].status == FINISHED else None

    @property
    def finished(self) -> list[Row]:
        return [row for row in self.rows if row.status == FINISHED]


def read_table(trials: Sequence[Trial]) -> Table:
    """Return the results in the trials' folders."""
    metric = trials[0].recipe.stop.metric
    sign = 1 if trials[0].recipe.stop.lower_is_better else -1
    files = {trial.name: trial.folder.path / FAILURE_FILE for trial in trials}
    failures = {name: path.read_text(encoding="utf-8") for name, path in files.items() if path.is_file()}
    rows = [row for trial in trials if (row := _read_row(trial, trial.name in failures)) is not None]
    order = {FINISHED: 0, STOPPED: 1, FAILED: 2}
    return Table(metric, sorted(rows, key=lambda row: (order[row.status], sign * row.value)), failures)


def _read_row(trial: Trial, has_failed: bool) -> Row | None:
    epochs = read_metrics(trial.folder.path)
    if not epochs:
        return None
    metric = f"val/{trial.recipe.stop.metric}"
    choose = min if trial.recipe.stop.lower_is_better else max
    best = choose(epochs, key=lambda epoch: epoch[metric])
    seconds = sum(epoch["train/time_s"] for epoch in epochs)
    status = FAILED if has_failed else FINISHED if trial.folder.is_finished else STOPPED
    pictures_s = epochs[-1]["samples_seen"] / max(seconds, 1e-9)
    variant = trial.variant
    return Row(
        trial.name, variant.name, variant.levels, status, best[metric], best["epoch"], len(epochs), seconds, pictures_s
    )


def write_table(sweep_dir: Path, table: Table) -> None:
    """Write table.csv and table.md."""
    write_text(sweep_dir / "table.csv", format_csv(tabulate(table)))
    write_text(sweep_dir / "table.md", describe(table))


def describe(table: Table) -> str:
    """Return the table as Markdown, with notes for reading it."""
    failures = "".join(f"{name} failed: {sentence}\n" for name, sentence in table.failures.items())
    return f"{format_markdown(tabulate(table))}\n{failures}{NOTE}"


def tabulate(table: Table) -> list[list[str]]:
    """Return header and cells."""
    factors = list(table.rows[0].levels) if table.rows else []
    has_names = any("=" not in row.variant for row in table.rows)  # of a search, where levels are no names
    header = [
        *(["variant"] if has_names else []),
        *factors,
        f"val {table.metric}",
        "best epoch",
        "epochs",
        "status",
        "train s",
        "pictures/s",
    ]
    body = [
        [
            *([row.variant] if has_names else []),
            *row.levels.values(),
            *(f"{row.value:.4f}", str(row.best_epoch), str(row.epochs), row.status),
            *(f"{row.train_s:.0f}", f"{row.img_s:.0f}"),
        ]
        for row in table.rows
    ]
    return [header, *body]


def format_csv(lines: list[list[str]]) -> str:
    """Return a CSV table."""
    text = io.StringIO()
    csv.writer(text).writerows(lines)
    return text.getvalue()


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
