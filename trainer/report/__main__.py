"""`python -m trainer.report RUN_DIR`: report.html and model_card.md of a finished run anew, without training."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from shards.cli.ending import DONE, run_command
from shards.cli.messages import add_volume
from shards.errors import UsageError
from shards.files.disk import naming_disk

if TYPE_CHECKING:
    from trainer.report.sources import Finished

_PARTS = ("train", "val", "test")


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    run = _open_run(arguments)
    if arguments.positive is not None:
        run = _judge_anew(run, arguments.positive)
    from trainer.report.card import write_card
    from trainer.report.page import write_report

    with naming_disk(run.folder, elsewhere="move the run's folder to another disk"):
        print(f"report  {write_report(run)}\ncard    {write_card(run)}")
    return DONE


def _open_run(arguments: argparse.Namespace) -> Finished:
    """Return the run of a folder.

    Raises:
        UsageError: No finished run, another dataset than it was trained on, or parts that it was not evaluated on.
    """
    import json

    from trainer.record.run_folder import RECIPE, RESULT, RunFolder  # late: mistakes are reported before torch is read

    folder: Path = arguments.run_dir
    if not RunFolder(folder).is_finished:
        raise UsageError(f"{folder} is no folder of a finished run (it has no {RESULT}); name one such as runs/demo")
    from shards.dataset.dataset import open_dataset, shorten
    from trainer.contract.bundle import Bundle
    from trainer.recipes.file import load_recipe
    from trainer.report.sources import Finished, read_environment
    from trainer.weights.resolve import resolve_recipe

    recipe = resolve_recipe(load_recipe(str(folder / RECIPE), [] if arguments.images else ["report.images=false"]))
    dataset = open_dataset(arguments.data or recipe.data, recipe.cache_options())
    bundle = Bundle.load(folder / "bundle")
    if bundle.page.dataset != dataset.fingerprint():
        raise UsageError(
            f"{shorten(dataset.location)} is not the dataset that {folder} was trained on (its fingerprint differs), "
            "so its pictures would not be those that were judged; name that one with --data"
        )
    notes = json.loads((folder / RESULT).read_text(encoding="utf-8"))["notes"]
    parts = arguments.part or list(_PARTS)
    run = Finished(folder, recipe, dataset, bundle, notes, read_environment(folder), parts)
    if arguments.part and len(run.evaluations) < len(set(parts)):
        there = ", ".join(path.parent.name for path in sorted(folder.glob("evaluation/*/metrics.json"))) or "none"
        raise UsageError(f"{folder} was evaluated on {there}, asked for was {', '.join(parts)}; leave out --part")
    return run


def _judge_anew(run: Finished, positive: str) -> Finished:
    """Return the run with another positive class: in its evaluations, whose rows are kept, its bundle and its recipe.

    Raises:
        UsageError: The run does not have the class, or a part that was evaluated has no rows any more.
    """
    from dataclasses import replace

    from shards.dataset.positive import find_misfit
    from trainer.contract.bundle import Bundle
    from trainer.contract.decision.stored_decision import store_positive
    from trainer.evaluate.files import Judging, write_evaluation
    from trainer.evaluate.positive import Positive
    from trainer.evaluate.predictions import read_predictions
    from trainer.recipes.file import load_recipe
    from trainer.record.run_folder import RECIPE

    page = run.page
    misfit = find_misfit(positive, page.classes, page.display_names, page.task)
    if misfit:
        raise UsageError(f"--positive {positive} {misfit}; name a class that each picture is or is not")
    everything = replace(run, parts=list(_PARTS)).evaluations  # one class for all of them, whatever is shown
    saved = [read_predictions(each.folder / "predictions.parquet") for each in everything]
    for each, rows in zip(everything, saved, strict=True):
        by = tuple(name for name in each.metrics.get("slices", {}) if name in rows.columns)
        write_evaluation(each.folder, rows, Judging(by=by, stored=Positive(positive, "recipe")))
    store_positive(run.folder / "bundle", positive)
    change = {"positive": positive}
    load_recipe(str(run.folder / RECIPE)).model_copy(update=change).write(run.folder / RECIPE)
    recipe, bundle = run.recipe.model_copy(update=change), Bundle.load(run.folder / "bundle")
    return replace(run, recipe=recipe, bundle=bundle)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer.report", description=__doc__)
    parser.add_argument("run_dir", type=Path, help="folder of a finished run, for example runs/demo")
    parser.add_argument("--part", action="append", choices=_PARTS, help="this part alone; again for more (all)")
    parser.add_argument(
        "--positive", metavar="CLASS", help="look for this class: count its figures anew and keep it as the run's"
    )
    parser.add_argument("--data", help="the dataset, where it is no longer where the recipe says")
    parser.add_argument(
        "--images", action=argparse.BooleanOptionalAction, default=True, help="show pictures of the dataset (yes)"
    )
    add_volume(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
