"""`python -m tune.run RECIPE SPACE [name=value ...]`: screen variants, confirm the best, keep the best bundle.

The same command resumes a stopped sweep, and opens a finished one. Exit code 3: some trials failed; the others are in
the table.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards.cli.arguments import read_at_least, read_size
from shards.cli.calling import CommandParser
from shards.cli.ending import DONE, REFUSED, run_command
from shards.cli.messages import add_volume
from shards.errors import UsageError
from trainer.recipes.file import load_recipe
from tune.run.options import SweepOptions

if TYPE_CHECKING:
    from tune.result.sweep import Sweep


def main(argv: list[str]) -> int:
    arguments = build_parser().parse_intermixed_args(argv)
    if arguments.delete:
        from tune.result.folder import delete_sweep

        delete_sweep(Path(arguments.delete))
        print(f"deleted {arguments.delete}")
        return DONE
    if arguments.recipe is None or arguments.space is None:
        raise UsageError("a recipe and a space are needed, for example `python -m tune.run demo demo`")
    options = SweepOptions(
        seeds=arguments.seeds,
        screen_only=arguments.screen_only,
        confirm_only=arguments.confirm_only,
        extend=arguments.extend,
        trials=arguments.trials,
        max_hours=arguments.max_hours,
        max_disk=arguments.max_disk,
    )
    from tune.space.file import load_space

    recipe, space = load_recipe(arguments.recipe, arguments.options), load_space(arguments.space)
    if space.confirm is None and (options.seeds or options.screen_only or options.confirm_only):
        raise UsageError(
            f"{arguments.space} confirms nothing, which --seeds, --screen-only and --confirm-only are about; "
            "add `confirm: {top: 3, seeds: 3}` to it"
        )
    space = options.change(space)
    if arguments.plan:
        from shards.workers.openmp import count_cpus
        from tune.run.plan import as_json, describe_plan, plan_sweep

        plan = plan_sweep(recipe, space, options.seeds)
        at_once = max(1, int(count_cpus() // (space.cpus_per_trial * space.ranks_per_trial)))
        print(json.dumps(as_json(plan)) if arguments.json else describe_plan(plan, at_once))
        return DONE
    from tune.run.sweep import run_sweep  # late: Ray and torch take seconds; mistakes are reported first

    sweep = run_sweep(recipe, space, options)
    print(json.dumps(_collect(sweep)) if arguments.json else _describe(sweep))
    return REFUSED if sweep.failures else DONE


def build_parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m tune.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", nargs="?", help="a YAML file, or the name of a built-in recipe")
    parser.add_argument("space", nargs="?", help="a YAML file, or the name of one in tune/space/spaces")
    parser.add_argument("options", nargs="*", metavar="name=value", help="changes to the recipe of every trial")
    parser.add_argument("--plan", action="store_true", help="print every trial with its time and disk, and start none")
    parser.add_argument(
        "--seeds", type=read_at_least(2), metavar="N", help="runs of each confirmed variant (as the space says)"
    )
    parser.add_argument("--trials", type=read_at_least(1), metavar="N", help="trials of a search (as the space says)")
    parser.add_argument(
        "--max-hours", type=float, metavar="H", help="save all states and end after H hours; the same command resumes"
    )
    parser.add_argument(
        "--max-disk", type=read_size, metavar="SIZE", help="the same once the sweep's folder takes more, such as 20GiB"
    )
    parser.add_argument("--screen-only", action="store_true", help="end after the screen; test stays unread")
    parser.add_argument("--confirm-only", action="store_true", help="confirm what the screen has so far")
    parser.add_argument(
        "--extend", action="store_true", help="take a changed space for the same sweep, and keep unchanged trials"
    )
    parser.add_argument("--delete", metavar="SWEEP", help="delete the folder of a sweep, runs/NAME, and end")
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object")
    add_volume(parser)
    return parser


def _collect(sweep: Sweep) -> dict[str, Any]:
    bundle = str(sweep.folder / "best/bundle") if sweep.best else None
    comparison = sweep.comparison.model_dump(mode="json") if sweep.comparison else None
    table = asdict(sweep.table) | {"failures": sweep.failures}
    return {"sweep": str(sweep.folder), "best": sweep.best, "bundle": bundle, "comparison": comparison, **table}


def _describe(sweep: Sweep) -> str:
    from tune.trials.table import describe

    lines = [describe(sweep.table)]
    if sweep.comparison:
        lines += [*(row.sentence for row in sweep.comparison.rows), ""]
    lines.append(f"table   {sweep.folder / 'table.md'}")
    if sweep.best:
        lines += [f"best    {sweep.best}", f"bundle  {sweep.folder / 'best/bundle'}"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_command(main))
