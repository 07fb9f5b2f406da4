"""report.html: one self-contained page about a run."""

from __future__ import annotations

from pathlib import Path

import yaml

from shards.files.atomic import write_text
from trainer.contract.metrics import find_right, list_metrics
from trainer.decide.telling import describe_decision
from trainer.evaluate.figures.figures import draw_training
from trainer.report.cost import list_costs
from trainer.report.data import tell_dataset
from trainer.report.judged import tell_evaluation
from trainer.report.markup import (
    escape,
    show_code,
    show_extra,
    show_facts,
    show_figures,
    show_note,
    show_table,
    write_page,
)
from trainer.report.reproduce import list_commands, tell_unrecorded
from trainer.report.result import describe_training, tell_result
from trainer.report.sources import LATENCY, Finished

AUGMENTED = "augment.png"
"""File in the run folder: a contact sheet of training pictures."""
CURVES = "curves.png"
REPORT = "report.html"
_NO_SHEET = show_note(
    f"{AUGMENTED} is not in the run folder: drawing it failed when the run ended (see the log), or it "
    "was removed. `python -m trainer.augment` draws one."
)
_EPOCHS = {
    "epoch": "epoch",
    "train/loss": "training loss",
    "val/log_loss": "validation log loss",
    "train/lr": "learning rate",
    "feed/img_s": "pictures a second",
    "feed/wait_frac": "share of waiting for data",
    "train/time_s": "seconds of training",
}
"""Columns of metrics.jsonl, and their display names."""


def write_report(run: Finished) -> Path:
    """Write curves.png and report.html to the run folder and return the page's path.

    Figures, maps and pictures that cannot be drawn or read are left out, with a note on the page and in the log.
    """
    first = run.evaluations[:1]
    sections = [(f"Evaluation on {each.part}", tell_evaluation(run, each, each in first)) for each in run.evaluations]
    sections += [("Model", show_facts(list_costs(run))), ("Decision", _tell_decision(run))]
    sections += [("Course of training", _tell_training(run))]
    if run.recipe.report.images and run.recipe.augment.changes:
        sections.append(("Pictures as training sees them", show_figures(run.folder / AUGMENTED) or _NO_SHEET))
    sections += [
        ("Dataset", tell_dataset(run)),
        *([("Notes", _tell_notes(run))] if run.logged or run.notes else []),
        ("Environment", _tell_environment(run)),
        ("Fingerprints", show_facts(list_fingerprints(run))),
        ("To reproduce", _reproduce(run)),
    ]
    write_text(run.folder / REPORT, write_page(run.recipe.name, sections, _tell_head(run)))
    return run.folder / REPORT


def _tell_head(run: Finished) -> str:
    """Return the header: the result, the data it is for, the baseline, and the cost."""
    parts = [f"<header><h1>{escape(run.recipe.name)}</h1>"]
    if run.evaluations:
        parts.append(tell_result(run, run.evaluations[0]))
    parts.append(f"<p>{escape(describe_training(run))}</p>")
    if run.recipe.report.images:
        parts.append(
            "<p class=soft>This page contains pictures of the dataset and names of its files: they may show patients. "
            "report.images=false leaves pictures out.</p>"
        )
    return "".join(parts) + "</header>"


def _tell_decision(run: Finished) -> str:
    """Return the section about the bundle's decision."""
    decision = run.page.decision
    if decision.fitted is None:
        several = "Every class whose own probability, the sigmoid of its logit, is at least 0.5"
        plain = "The most probable class, by plain softmax" if decision.task.is_exclusive else several
        return f"<p>{plain}; <code>trainer.decide</code> fits more to validation.</p>"
    lines = describe_decision(decision, run.page.classes)
    return show_code("\n".join(lines)) + (
        "<p class=soft>The metrics above are those of the evaluation, with its own thresholds.</p>"
    )


def _tell_training(run: Finished) -> str:
    rows = run.rows
    first = list_metrics(find_right([name.removeprefix("val/") for name in rows[0]]).task, "stop")[0]
    keys = list(_EPOCHS)
    keys[3:3] = [f"val/{first.key}"]
    header = [_EPOCHS.get(key, f"validation {first.name}") for key in keys]
    table = show_table(header, [[f"{row[key]:.4g}" for key in keys] for row in rows])

    def draw() -> str:
        draw_training(run.folder / CURVES, rows)
        return show_figures(run.folder / CURVES)

    return show_extra(CURVES, draw) + table


def _tell_notes(run: Finished) -> str:
    """Return the notes and log messages of the run; warnings are highlighted."""
    told = [f"<p>{escape(f'{note[0].upper()}{note[1:]}.')}</p>" for note in run.notes]
    for note in run.logged:
        text = f"{note.time}: {note.text}"
        told.append(f"<p>{escape(text)}</p>" if note.level == "info" else show_note(text))
    return "".join(told)


def list_fingerprints(run: Finished) -> dict[str, str]:
    """Return the fingerprints of dataset, recipe and bundle."""
    return {
        "dataset": run.dataset.fingerprint(),
        "recipe": run.recipe.fingerprint(),
        "bundle": run.page.fingerprint(),
        "weights": run.page.weights_sha256,
    }


def _tell_environment(run: Finished) -> str:
    told = {name: fact for name, fact in run.environment.items() if name != LATENCY}  # shown at the top
    return show_facts(told) if told else "<p>Not recorded.</p>"


def _reproduce(run: Finished) -> str:
    recipe = yaml.safe_dump(run.recipe.describe(), sort_keys=False, allow_unicode=True)
    unrecorded = tell_unrecorded(run)
    return (
        show_code("\n".join(list_commands(run)))
        + (f"<p class=soft>{escape(unrecorded)}</p>" if unrecorded else "")
        + f"<details><summary>The resolved recipe, every option</summary>{show_code(recipe)}</details>"
    )
