"""The last W&B run of a sweep: its tables, figures and confusion matrices."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from trainer.evaluate.extras import describe_error
from trainer.record.track.curves import list_cells
from trainer.record.track.wandb_session import Heading, WandbSession
from tune.confirm.answers import find_predictions
from tune.dashboard.keys import COMPARISON, FIGURES, SCREEN, name_confusion
from tune.dashboard.tracked import FOLDER, is_tracked
from tune.report.findings import answer, ask
from tune.report.page import FIGURES as DRAWN
from tune.report.tables import tabulate_comparison
from tune.result.sweep import Sweep
from tune.trials.table import tabulate

JOB_TYPE = "report"
Cell = str | float | None

logger = logging.getLogger(__name__)


def try_report_run(sweep: Sweep) -> None:
    """Track the last run of a sweep that has ended, if its runs are tracked; a failure is a note in the log."""
    mode = sweep.recipe.track.choose_wandb_mode()
    if mode == "disabled" or not is_tracked(sweep):
        return
    try:
        track_report(sweep, mode)
    except Exception as err:  # from W&B: tracking is optional, and the sweep is done
        logger.warning(
            "W&B has no tables and figures of this sweep (%s); `python -m tune.dashboard %s` sends them",
            describe_error(err),
            sweep.folder,
        )


def track_report(sweep: Sweep, mode: str) -> str:
    """Track the tables, figures and confusion matrices of a sweep as one run, and return the entity it belongs to.

    The run keeps its id: made again, it is continued online, and replaced offline. The entity is "" offline.

    Raises:
        Exception: Whatever W&B raises.
    """
    place = sweep.folder / FOLDER
    place.mkdir(exist_ok=True)
    if mode == "offline":
        shutil.rmtree(place / "wandb", ignore_errors=True)
    options = sweep.recipe.track
    heading = Heading(options.project, sweep.folder.name, JOB_TYPE, sweep.folder.name, options.tags)
    session = WandbSession(place, heading, _make_config(sweep), mode)
    try:
        session.run.log(_collect(sweep, session))
        session.run.summary.update({"question": ask(sweep), "answer": answer(sweep), "best": sweep.best})
        entity = session.run.entity or ""
    except Exception:
        session.close(exit_code=1)
        raise
    session.close()
    return entity if mode == "online" else ""


def _make_config(sweep: Sweep) -> dict[str, Any]:
    space = sweep.space.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    facts = {"dataset": sweep.dataset, "recipe_fingerprint": sweep.recipe.fingerprint(), "space": space}
    return {**sweep.recipe.describe(), **facts}


def _collect(sweep: Sweep, session: WandbSession) -> dict[str, Any]:
    """Return what the run logs, by key."""
    tables = {SCREEN: tabulate(sweep.table)}
    if sweep.comparison is not None:
        tables[COMPARISON] = tabulate_comparison(sweep)
    logged: dict[str, Any] = {}
    for name, (head, *body) in tables.items():
        logged[name] = session.wandb.Table(columns=head, data=read_cells(body))
    for path in sorted((sweep.folder / DRAWN).glob("*.png")):
        logged[f"{FIGURES}/{path.stem}"] = session.wandb.Image(str(path))
    for variant, (classes, counts) in add_confusions(sweep).items():
        logged[name_confusion(variant)] = session.draw_cells(list_cells(counts, classes))
    return logged


def read_cells(body: list[list[str]]) -> list[list[Cell]]:
    """Return the rows of a table with numbers in the columns that hold nothing else; empty cells there are None.

    >>> read_cells([["a", "1", ""], ["b", "2.5", "x"]])
    [['a', 1.0, ''], ['b', 2.5, 'x']]
    """
    columns = [_read_column(list(column)) for column in zip(*body, strict=True)]
    return [list(row) for row in zip(*columns, strict=True)]


def _read_column(cells: list[str]) -> list[Cell]:
    try:
        return [float(cell) if cell else None for cell in cells]
    except ValueError:
        return list(cells)


def add_confusions(sweep: Sweep) -> dict[str, tuple[list[str], list[list[int]]]]:
    """Return classes and confusion matrix of each variant that was evaluated on the test split, summed over its seeds.

    {} before the test split was opened.
    """
    found: dict[str, tuple[list[str], Any]] = {}
    for trial in sweep.confirm_trials:
        page = _read_metrics(find_predictions(trial).with_name("metrics.json"))
        if "confusion" in page:
            classes, before = found.get(trial.variant.name, (list(page["per_class"]), 0))
            found[trial.variant.name] = classes, before + np.array(page["confusion"])
    return {name: (classes, counts.tolist()) for name, (classes, counts) in found.items()}


def _read_metrics(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found
