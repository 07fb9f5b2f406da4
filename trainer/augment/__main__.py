"""`python -m trainer.augment RECIPE [name=value ...]`: a contact sheet of pictures before and after augmentation."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shards.cli.arguments import check_count
from shards.cli.calling import CommandParser
from shards.cli.ending import run_command
from shards.cli.messages import add_volume
from trainer.recipes.file import load_recipe


def main(argv: list[str]) -> int:
    arguments = build_parser().parse_intermixed_args(argv)
    check_count("--samples", arguments.samples, of="pictures")
    recipe = load_recipe(arguments.recipe, arguments.options)
    out = arguments.out or Path(f"{recipe.name}-augment.png")
    from shards.dataset.dataset import open_dataset
    from trainer.augment.sheet import write_contact_sheet  # late: torch takes seconds, and mistakes are told before
    from trainer.feed.augment.policies import check_augment
    from trainer.weights.resolve import resolve_recipe

    resolved = resolve_recipe(recipe)
    dataset = open_dataset(resolved.data, resolved.cache_options())
    check_augment(resolved.augment, resolved.preprocess.channels, resolved.image_size)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_contact_sheet(resolved, dataset, out, arguments.samples)
    print(f"sheet   {out}")
    return 0


def build_parser() -> CommandParser:
    style = argparse.ArgumentDefaultsHelpFormatter
    parser = CommandParser(prog="python -m trainer.augment", description=__doc__, formatter_class=style)
    parser.add_argument("recipe", help="a YAML file, or the name of a built-in recipe")
    parser.add_argument("options", nargs="*", metavar="name=value", help="changes to the recipe: augment.policy=light")
    parser.add_argument("--out", type=Path, help="PNG to write (default: NAME-augment.png)")
    parser.add_argument("--samples", type=int, default=6, help="training pictures to show")
    add_volume(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
