"""`python -m shards pack SRC OUT`."""

from __future__ import annotations

import argparse

from shards.cli.calling import CommandParser
from shards.cli.messages import add_volume, say
from shards.commands.arguments import (
    EDITED_HELP,
    POSITIVE_HELP,
    STYLE,
    add_run_arguments,
    add_source_arguments,
    choose_pool,
    read_options,
    read_sources,
    settle_splits,
    spell_options,
    spell_path,
)
from shards.commands.progress import show_progress
from shards.commands.stat import print_dataset
from shards.dataset.origin import PackCommand
from shards.packing.claim import QUARANTINE
from shards.packing.pack import Run, pack


def main(argv: list[str]) -> int:
    return run(build_parser().parse_args(argv))


def build_parser() -> CommandParser:
    parser = CommandParser(prog="python -m shards pack", formatter_class=STYLE)
    add_source_arguments(parser)
    parser.add_argument("out", help="dataset to be made: a folder, s3://BUCKET/PATH or gs://BUCKET/PATH")
    group = parser.add_argument_group("shards")
    group.add_argument(
        "--shard-bytes", default="64MiB", help="bytes of pictures in a shard; a tar has about 3 KiB more for each"
    )  # fmt: skip
    group.add_argument("--max-side", type=int, metavar="PIXELS", help="shrink larger pictures to this longer side")
    group.add_argument("--quality", type=int, default=90, help="JPEG quality of shrunk pictures")
    group.add_argument("--positive", metavar="CLASS", help=POSITIVE_HELP)
    group.add_argument("--update", action="store_true", help="add new pictures to OUT; its shards are left alone")
    group = parser.add_argument_group("audit")
    group.add_argument("--audit", choices=["full", "none"], default="full", help="none: pack without decoding")
    group.add_argument("--edited-copies", action="store_true", help=EDITED_HELP)
    group.add_argument("--allow-leaks", action="store_true", help="pack although pictures leak or labels conflict")
    group.add_argument("--drop-duplicates", action="store_true", help="keep one of equal pictures, none in conflict")
    add_run_arguments(parser)
    parser.set_defaults(parser=parser)
    add_volume(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Pack, then print what the dataset holds."""
    options = read_options(
        arguments,
        audit=arguments.audit,
        edited_copies=arguments.edited_copies,
        allow_leaks=arguments.allow_leaks,
        drop_duplicates=arguments.drop_duplicates,
        positive=arguments.positive,
    )
    listed, options = settle_splits(arguments, read_sources(arguments), options)
    command = PackCommand(source=spell_path(arguments.src), options=spell_options(arguments))
    with choose_pool(arguments) as pool, show_progress() as progress:
        manifest = pack(listed, arguments.out, options, Run(pool, progress, _say), arguments.update, command)
    if arguments.json:
        print(manifest.model_dump_json())
        return 0
    for ending, count in listed.left_out.items():
        print(f"left out {count:,} files ending in {ending}: not pictures by their ending")
    if manifest.quarantined:
        print(f"left out {manifest.quarantined:,} unreadable pictures, listed in {arguments.out}/{QUARANTINE}")
    if manifest.audited.dropped:
        print(f"left out {manifest.audited.dropped:,} duplicates, listed in {arguments.out}/{QUARANTINE}")
    print_dataset(arguments.out, manifest)
    return 0


def _say(sentence: str) -> None:
    say(f"note: {sentence}")
