"""`python -m trainer.report RUN_DIR`: report.html and model_card.md of a finished run anew, without training."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from shards.command import DONE, run_command
from shards.errors import UsageError

if TYPE_CHECKING:
    from trainer.report.sources import Finished

_PARTS = ("train", "val", "test")


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    run = _open_run(arguments)
    from trainer.report.card import write_card
    from trainer.report.page import write_report

    print(f"report  {write_report(run)}\ncard    {write_card(run)}")
    return DONE


def _open_run(arguments: argparse.Namespace) -> Finished:
    """Return the run of a folder.

    Raises:
        UsageError: No finished run, another dataset than it was trained on, or parts that it was not evaluated on.
    """
    import json

    from trainer.run_dir import RECIPE, RESULT, is_finished  # late: torch takes seconds, mistakes are told before

    folder: Path = arguments.run_dir
    if not is_finished(folder):
        raise UsageError(f"{folder} is no folder of a finished run (it has no {RESULT}); name one such as runs/demo")
    from shards.dataset import open_dataset, shorten
    from trainer.build import resolve_recipe
    from trainer.contract.bundle import Bundle
    from trainer.recipe_file import load_recipe
    from trainer.report.sources import Finished, read_environment

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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer.report", description=__doc__)
    parser.add_argument("run_dir", type=Path, help="folder of a finished run, for example runs/demo")
    parser.add_argument("--part", action="append", choices=_PARTS, help="this part alone; again for more (all)")
    parser.add_argument("--data", help="the dataset, where it is no longer where the recipe says")
    parser.add_argument(
        "--images", action=argparse.BooleanOptionalAction, default=True, help="show pictures of the dataset (yes)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
