"""`python -m shards index FOLDER`: make foreign tars a dataset in place."""

from __future__ import annotations

import argparse
from pathlib import Path

from shards.cli.calling import CommandParser
from shards.cli.messages import add_volume, print_note
from shards.commands.arguments import POSITIVE_HELP, STYLE
from shards.commands.progress import show_progress
from shards.commands.stat import print_dataset


def main(argv: list[str]) -> int:
    return run(build_parser().parse_args(argv))


def build_parser() -> CommandParser:
    parser = CommandParser(prog="python -m shards index", formatter_class=STYLE)
    parser.add_argument("folder", type=Path, help="folder of the tars; train, val or test is in folder or file names")
    parser.add_argument("--class-names", type=Path, metavar="FILE", help="display names: `0 NAME` lines, JSON or YAML")
    parser.add_argument("--positive", metavar="CLASS", help=POSITIVE_HELP)
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")
    add_volume(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Index the tars and print what they hold."""
    from shards.packing.foreign import index_foreign  # late import: other commands do not need it

    with show_progress() as progress:
        manifest, warnings = index_foreign(
            arguments.folder, class_names=arguments.class_names, positive=arguments.positive, progress=progress
        )
    for warning in warnings:
        print_note(f"note: {warning}")
    if arguments.json:
        print(manifest.model_dump_json())
    else:
        print_dataset(arguments.folder, manifest)
    return 0
