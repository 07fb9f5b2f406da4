"""`python -m shards verify DATASET`."""

from __future__ import annotations

import argparse
import json

from shards.cli.calling import CommandParser
from shards.cli.messages import add_volume, print_note
from shards.commands.arguments import STYLE
from shards.storage.shown import show_location


def main(argv: list[str]) -> int:
    return run(build_parser().parse_args(argv))


def build_parser() -> CommandParser:
    parser = CommandParser(prog="python -m shards verify", formatter_class=STYLE)
    parser.add_argument("dataset", help="folder or URI of the dataset")
    parser.add_argument("--sample", type=int, metavar="N", help="decode N pictures, drawn at random, instead of all")
    parser.add_argument("--seed", type=int, default=0, help="seed of that draw")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_volume(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Verify, and print what was checked."""
    from shards.dataset.verify import verify_dataset  # late import: other commands do not need it

    done = verify_dataset(arguments.dataset, sample=arguments.sample, seed=arguments.seed)
    if arguments.json:
        print(json.dumps({"shards": done.shards, "verified": done.pictures, "notes": done.notes}))
    else:
        print(
            f"{show_location(arguments.dataset)}: {done.shards:,} shards hashed, {done.pictures:,} pictures decoded, "
            "all as packed"
        )
    for note in done.notes:
        print_note(f"note: {note}")
    return 0
