"""`python -m shards audit SRC`: find faults of pictures without packing them."""

from __future__ import annotations

import argparse

from shards.audit.audit import audit_pictures, refuse_rejects, refuse_unknown_range
from shards.audit.examine import JOURNAL, examine_sources
from shards.audit.findings import refuse_findings
from shards.audit.publish import write_pages
from shards.audit.summary import format_summary
from shards.cli.calling import CommandParser
from shards.cli.messages import add_volume, print_note
from shards.commands.arguments import (
    EDITED_HELP,
    STYLE,
    add_run_arguments,
    add_source_arguments,
    read_request,
    set_defaults,
)
from shards.commands.options import SourceOptions
from shards.commands.progress import show_progress
from shards.dataset.manifest import MANIFEST_NAME
from shards.errors import UsageError
from shards.packing.claim import MARKER
from shards.storage.shown import show_location
from shards.storage.storage import Storage, open_storage


def main(argv: list[str]) -> int:
    return run(build_parser().parse_args(argv))


def build_parser() -> CommandParser:
    parser = CommandParser(prog="python -m shards audit", formatter_class=STYLE)
    add_source_arguments(parser)
    parser.add_argument("--edited-copies", action="store_true", help=EDITED_HELP)
    parser.add_argument("--out", default="audit", help="folder for audit.html and audit.parquet")
    add_run_arguments(parser)
    set_defaults(parser, SourceOptions)
    add_volume(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Audit like `pack`, write the files, print the summary; exit with 3 if `pack` would refuse."""
    request = read_request(arguments, SourceOptions)
    listed, options = request.settle_splits(request.find_sources(), request.read())
    storage = open_storage(arguments.out)
    _refuse_dataset(storage)
    with (
        request.open_pool() as pool,
        show_progress() as shown,
        storage.locked(),
        request.measured(arguments.out) as meters,
    ):
        progress = meters.follow(shown)
        examined = examine_sources(listed, options.store.decode, pool, storage, progress)
        edited = None
        if request.edited_copies:
            from shards.audit.edited import find_edited_copies  # late import: rarely used

            edited = find_edited_copies(listed, examined, options.store.decode, pool, progress)
        audit = audit_pictures(listed.sources, examined, options.split, edited)
        summary = write_pages(storage, audit, listed, str(arguments.src), options.store.decode)
        storage.delete(sorted(name for name in storage.sizes() if name.startswith(JOURNAL)))
    for note in [*listed.notes, *audit.notes]:
        print_note(f"note: {note}")
    print(summary.model_dump_json() if arguments.json else format_summary(summary))
    print_note(f"see {show_location(arguments.out)}/audit.html")
    refuse_unknown_range(examined, options.store.decode)
    refuse_rejects(listed.sources, examined, options.max_reject_rate)
    refuse_findings(audit.findings, allow_leaks=False)
    return 0


def _refuse_dataset(storage: Storage) -> None:
    """Raise a UsageError for the folder of a dataset, finished or not: it needs packing's own `audit.parquet`."""
    if {MANIFEST_NAME, MARKER} & set(storage.sizes()):
        raise UsageError(f"{storage} holds a dataset, which keeps the audit it was packed with; give another --out")
