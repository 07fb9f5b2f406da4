"""`python -m shards pack SRC OUT`."""

from __future__ import annotations

import argparse
from pathlib import Path

from shards.cli.calling import CommandParser
from shards.cli.messages import add_volume, print_note
from shards.commands.arguments import (
    EDITED_HELP,
    POSITIVE_HELP,
    STYLE,
    add_run_arguments,
    add_source_arguments,
    read_request,
    set_defaults,
)
from shards.commands.options import PackRequest, spell_path
from shards.commands.progress import show_progress
from shards.commands.stat import print_dataset
from shards.dataset.manifest import Manifest
from shards.dataset.origin import PackCommand
from shards.packing.claim import QUARANTINE
from shards.packing.pack import Run, pack
from shards.sources.model import SourceList
from shards.storage.shown import show_location


def main(argv: list[str]) -> int:
    return run(build_parser().parse_args(argv))


def build_parser() -> CommandParser:
    parser = CommandParser(prog="python -m shards pack", formatter_class=STYLE)
    add_source_arguments(parser)
    parser.add_argument("out", help="dataset to make: a folder, s3://BUCKET/PATH or gs://BUCKET/PATH")
    group = parser.add_argument_group("shards")
    group.add_argument(
        "--shard-bytes", help="bytes of pictures in a shard; a tar has about 3 KiB more for each"
    )  # fmt: skip
    group.add_argument("--max-side", type=int, metavar="PIXELS", help="shrink larger pictures to this longer side")
    group.add_argument("--quality", type=int, help="JPEG quality of shrunk pictures")
    group.add_argument("--positive", metavar="CLASS", help=POSITIVE_HELP)
    group.add_argument("--update", action="store_true", help="add new pictures to OUT without changing its shards")
    group = parser.add_argument_group("audit")
    group.add_argument("--audit", choices=["full", "none"], help="none: pack without decoding")
    group.add_argument("--edited-copies", action="store_true", help=EDITED_HELP)
    group.add_argument("--allow-leaks", action="store_true", help="pack even if pictures leak or labels conflict")
    group.add_argument(
        "--drop-duplicates",
        action="store_true",
        help="keep one of each set of equal pictures, none if their labels conflict",
    )
    add_run_arguments(parser)
    set_defaults(parser, PackRequest)
    add_volume(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Pack, then print what the dataset holds."""
    manifest, listed = run_pack(read_request(arguments, PackRequest), arguments.out)
    shown = show_location(arguments.out)
    if arguments.json:
        print(manifest.model_dump_json())
        return 0
    for ending, count in listed.left_out.items():
        print(f"left out {count:,} files ending in {ending}: not pictures by their ending")
    if manifest.quarantined:
        print(f"left out {manifest.quarantined:,} unreadable pictures, listed in {shown}/{QUARANTINE}")
    if manifest.audited.dropped:
        print(f"left out {manifest.audited.dropped:,} duplicates, listed in {shown}/{QUARANTINE}")
    print_dataset(arguments.out, manifest)
    return 0


def run_pack(request: PackRequest, out: str | Path) -> tuple[Manifest, SourceList]:
    """Pack, with progress and notes on standard error; return the manifest and the sources.

    Raises:
        UsageError, ShardError, OSError: As `find_sources` and `shards.packing.pack.pack`.
    """
    listed, options = request.settle_splits(request.find_sources(), request.read())
    command = PackCommand(source=spell_path(show_location(request.src)), options=request.spell())
    with request.open_pool() as pool, show_progress() as progress, request.measured(out) as meters:
        run = Run(pool, meters.follow(progress), _print_note)
        manifest = pack(listed, out, options, run, request.update, command)
        meters.finish(manifest)
    return manifest, listed


def _print_note(sentence: str) -> None:
    print_note(f"note: {sentence}")
