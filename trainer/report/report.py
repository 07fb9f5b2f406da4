"""Write the report and model card of a finished run again."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from shards.dataset.dataset import open_dataset
from shards.dataset.positive import find_misfit
from shards.errors import UsageError
from shards.files.disk import naming_disk
from shards.storage.shown import show_location
from trainer.contract.bundle import Bundle
from trainer.contract.decision.stored_decision import store_positive
from trainer.evaluate.files import Judging, write_evaluation
from trainer.evaluate.positive import Positive
from trainer.evaluate.predictions import read_predictions
from trainer.recipes.file import load_recipe
from trainer.record.run_folder import RECIPE, RESULT, RunFolder
from trainer.report.card import write_card
from trainer.report.options import SPLITS, ReportOptions
from trainer.report.page import write_report
from trainer.report.sources import Finished, read_environment
from trainer.weights.resolve import resolve_recipe


@dataclass(frozen=True)
class Written:
    """The files that were written."""

    report: Path
    card: Path


def report(options: ReportOptions) -> Written:
    """Write the report and model card of a finished run again; with `positive`, compute that class's metrics first.

    Raises:
        UsageError: The run is not finished, the dataset is not the one it was trained on, a split was not evaluated, or
            the positive class does not exist.
        ShardError: The bundle or dataset is damaged.
    """
    run = _open_run(options)
    if options.positive is not None:
        run = _judge_anew(run, options.positive)
    with naming_disk(run.folder, elsewhere="move the run folder to another disk"):
        return Written(write_report(run), write_card(run))


def _open_run(options: ReportOptions) -> Finished:
    """Return the run of a folder.

    Raises:
        UsageError: The run is not finished, the dataset is not the one it was trained on, or a split was not evaluated.
    """
    folder = options.run_dir
    if not RunFolder(folder).is_finished:
        raise UsageError(f"{folder} is not a finished run (it has no {RESULT}); name a folder such as runs/demo")
    recipe = resolve_recipe(load_recipe(str(folder / RECIPE), [] if options.images else ["report.images=false"]))
    dataset = open_dataset(options.data or recipe.data, recipe.cache_options())
    bundle = Bundle.load(folder / "bundle")
    if bundle.page.dataset != dataset.fingerprint():
        raise UsageError(
            f"{show_location(dataset.location)} is not the dataset that {folder} was trained on (its fingerprint "
            "differs), so its pictures were not the ones evaluated; name the right one with --data"
        )
    notes = json.loads((folder / RESULT).read_text(encoding="utf-8"))["notes"]
    parts: list[str] = [*(options.part or SPLITS)]
    run = Finished(folder, recipe, dataset, bundle, notes, read_environment(folder), parts)
    if options.part and len(run.evaluations) < len(set(parts)):
        there = ", ".join(RunFolder(folder).read_evaluations()) or "none"
        raise UsageError(f"{folder} was evaluated on {there}, but --part asks for {', '.join(parts)}; leave out --part")
    return run


def _judge_anew(run: Finished, positive: str) -> Finished:
    """Return the run with another positive class in its evaluations, computed from saved rows, bundle and recipe.

    Raises:
        UsageError: The run does not have the class, or the rows of an evaluated split are missing.
    """
    page = run.page
    misfit = find_misfit(positive, page.classes, page.display_names, page.task)
    if misfit:
        raise UsageError(f"--positive {positive} {misfit}; name one of the classes")
    everything = replace(run, parts=[*SPLITS]).evaluations  # all of them, whatever is shown
    saved = [read_predictions(each.folder / "predictions.parquet") for each in everything]
    for each, rows in zip(everything, saved, strict=True):
        by = tuple(name for name in each.metrics.get("slices", {}) if name in rows.columns)
        write_evaluation(each.folder, rows, Judging(by=by, stored=Positive(positive, "recipe")))
    store_positive(run.folder / "bundle", positive)
    change = {"positive": positive}
    load_recipe(str(run.folder / RECIPE)).model_copy(update=change).write(run.folder / RECIPE)
    recipe, bundle = run.recipe.model_copy(update=change), Bundle.load(run.folder / "bundle")
    return replace(run, recipe=recipe, bundle=bundle)
