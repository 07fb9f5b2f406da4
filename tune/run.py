"""`python -m tune.run RECIPE SPACE [name=value ...]`: sweep, table, best bundle.

The same command resumes a stopped sweep.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from shards.cli.calling import CommandParser
from shards.cli.ending import run_command
from shards.cli.messages import add_volume
from trainer.recipes.file import load_recipe


def main(argv: list[str]) -> int:
    arguments = build_parser().parse_intermixed_args(argv)
    from trainer.record.run_folder import RunFolder
    from tune.space import load_space

    recipe = load_recipe(arguments.recipe, arguments.options).with_absolute_paths()
    space = load_space(arguments.space)
    from tune.sweep import BEST, run_sweep  # late import: Ray and torch take seconds; mistakes are reported first
    from tune.table import describe

    sweep_dir = RunFolder.of(recipe).path
    table = run_sweep(recipe, space, sweep_dir)
    if arguments.json:
        print(json.dumps({"sweep": str(sweep_dir), "bundle": str(sweep_dir / BEST), **asdict(table)}))
        return 0
    print(f"{describe(table)}\ntable   {sweep_dir / 'table.md'}\nbundle  {sweep_dir / BEST}")
    return 0


def build_parser() -> CommandParser:
    parser = CommandParser(prog="python -m tune.run", description=__doc__)
    parser.add_argument("recipe", help="a YAML file, or the name of one in trainer/recipes")
    parser.add_argument("space", help="a YAML file, or the name of one in tune/spaces")
    parser.add_argument("options", nargs="*", metavar="name=value", help="changes to the recipe of every trial")
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object")
    add_volume(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
