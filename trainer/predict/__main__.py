"""`python -m trainer.predict BUNDLE PATH...`: label pictures that have no label; one CSV row a picture.

Pictures stream: any number takes no more memory than a few batches, and the names of a folder, archive, list or prefix.
Labels do not depend on --workers or --batch-size, logits do within the tolerance of the bundle's probes.

Several labels of a picture are joined by `;`; none are an empty cell, or an empty list with --json.
Where the bundle has a decision of trainer.decide, rows say `decision` and `abstain`, too, and what else it has of
`ood_score` and `set` (classes joined by ;).

With --out, a command that was stopped goes on where it was when it is run again (OUT.partial.jsonl has what is done).
Pictures that cannot be read are named on standard error and in OUT.unreadable.csv, and the others are done.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from shards.cli.arguments import read_count
from shards.cli.ending import REFUSED, run_command
from shards.cli.messages import add_volume, say
from shards.errors import Interrupted, UsageError
from shards.sources.kinds import KINDS, describe
from shards.workers.openmp import count_cpus
from trainer.contract.model.names import AUTO, BACKENDS

if TYPE_CHECKING:
    from shards.sources.list_form import ListForm
    from trainer.contract.bundle import BundlePage
    from trainer.predict.answer import Row
    from trainer.predict.asked import Asked, Place
    from trainer.predict.tables import Columns, Form

BATCH = 32


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    if not arguments.paths and not arguments.list:
        raise UsageError("no PATH; name pictures, or what holds pictures, or give --list FILE")
    from trainer.contract.bundle import read_bundle_page
    from trainer.predict.asked import find_asked
    from trainer.predict.tables import choose_columns, choose_form

    form = choose_form(arguments.out, arguments.json)
    page = read_bundle_page(arguments.bundle)
    columns = choose_columns(page, arguments.columns.split(",") if arguments.columns else None)
    asked = find_asked(arguments.paths, arguments.list, _read_form(arguments))
    tally = _Tally(arguments.grid_pages if arguments.grid else 0)
    if arguments.out is None:
        _print_rows(arguments, asked, form, columns, tally)
    else:
        _write_rows(arguments, asked, page, form, columns, tally)
    if arguments.grid:
        from trainer.predict.grid import write_pages

        pages = write_pages(arguments.grid, page, asked, tally.shown)
        say(f"{arguments.grid}: {pages:,} pages")
    if tally.unreadable:
        print(f"{tally}; the others are done", file=sys.stderr)
    return REFUSED if tally.unreadable and arguments.strict else 0


def _read_form(arguments: argparse.Namespace) -> ListForm:
    from shards.sources.list_form import parse_columns, parse_ending
    from trainer.predict.asked import PATHS_ALONE

    columns = arguments.list_columns
    return dataclasses.replace(
        PATHS_ALONE,
        columns=parse_columns("--list-columns", columns, PATHS_ALONE.roles) if columns is not None else {},
        base=arguments.base,
        ending=parse_ending(arguments.ending) if arguments.ending is not None else "",
    )


class _Tally:
    """What came of the pictures so far; shown: the first answers with their positions, for pages of pictures."""

    def __init__(self, pages: int) -> None:
        from trainer.predict.grid import PER_PAGE

        self._most = pages * PER_PAGE
        self.pictures = self.unreadable = 0
        self.shown: list[tuple[int, Row]] = []

    def count(self, row: Row) -> None:
        if row.answer is None:
            self.unreadable += 1
        elif len(self.shown) < self._most:
            self.shown.append((self.pictures, row))
        self.pictures += 1

    def __str__(self) -> str:
        return f"{self.unreadable:,} of {self.pictures:,} pictures could not be read"


def _print_rows(arguments: argparse.Namespace, asked: Asked, form: Form, columns: Columns, tally: _Tally) -> None:
    from trainer.predict.tables import LineWriter

    try:
        batches = _answer(arguments, asked, asked.list(), 0)
        writer = LineWriter(sys.stdout.write, form, columns)
        for row in (row for batch in batches for row in batch):
            tally.count(row)
            if row.answer is not None:
                writer.write(row)
        writer.close()
    except KeyboardInterrupt:
        raise Interrupted("interrupted; give --out for a command that goes on where it was stopped") from None


def _write_rows(
    arguments: argparse.Namespace, asked: Asked, page: BundlePage, form: Form, columns: Columns, tally: _Tally
) -> None:
    from trainer.predict.partial import open_partial
    from trainer.predict.parts import write_name
    from trainer.predict.tables import write_rows, write_unreadable

    paths = [*arguments.paths, *map(str, arguments.list)]
    said = {
        "bundle": page.fingerprint(),
        "PATH": [write_name(path if "://" in path else os.path.abspath(path)) for path in paths],
        "--batch-size": arguments.batch_size,
        "--backend": arguments.backend,
    }
    with open_partial(arguments.out, said) as partial:
        places = asked.list()
        done = partial.resume(places, arguments.batch_size)
        if done:
            say(f"{done:,} pictures are done already; going on from there")
        for batch in _answer(arguments, asked, places, done):
            partial.append(batch)
        for row in write_rows(arguments.out, form, columns, partial.rows()):
            tally.count(row)
        bad = ((row.path, row.unreadable) for row in partial.rows() if row.unreadable is not None)
        listed = write_unreadable(arguments.out, bad)
    if listed:
        say(f"{listed} names what could not be read")


def _answer(arguments: argparse.Namespace, asked: Asked, places: Iterable[Place], done: int) -> Iterator[list[Row]]:
    """Yield rows by batches, here or on a cluster, with progress on stderr, which also names what could not be read."""
    from shards.cli.messages import write_line
    from shards.cli.progress import Progress

    total = asked.count
    if total is None and sys.stderr.isatty():
        total = sum(1 for _ in asked.list())  # the bar says how long it takes; listing costs little beside decoding
    with contextlib.closing(Progress("predict", total, done)) as progress:
        for batch in _compute(arguments, asked, places):
            for row in batch:
                if row.unreadable is not None:
                    write_line(f"{row.path}: {row.unreadable}")
            done += len(batch)
            progress.show(done)
            yield batch


def _compute(arguments: argparse.Namespace, asked: Asked, places: Iterable[Place]) -> Iterator[list[Row]]:
    from trainer.contract.compute.choice import load_with_backend

    # For a cluster as well: what is wrong with a bundle is told before actors start.
    bundle, _ = load_with_backend(arguments.bundle, backend=arguments.backend)
    if arguments.on == "ray":
        from trainer.predict.ray import Asking, answer_on_ray  # the only way in for Ray

        asking = Asking(str(arguments.bundle.absolute()), arguments.backend, asked)
        return answer_on_ray(asking, places, arguments.batch_size, arguments.workers)
    from trainer.predict.answer import Speed, answer_stream

    workers = arguments.workers or count_cpus()
    return answer_stream(bundle, asked, places, Speed(workers, arguments.batch_size))


def _read_workers(text: str) -> int | None:
    return None if text == AUTO else read_count(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, help="folder of a bundle, for example runs/demo/bundle")
    parser.add_argument("paths", nargs="*", metavar="PATH", help=f"{describe(KINDS)}; one split is DATASET:test")
    parser.add_argument(
        "--list", type=Path, action="append", default=[], metavar="FILE", help="a file with a path a line, or a .csv"
    )
    group = parser.add_argument_group("lists", "what a .csv or .parquet list that follows other names means")
    group.add_argument("--list-columns", metavar="path=NAME", help="column of the paths (path)")
    group.add_argument("--base", type=Path, metavar="DIR", help="folder of its relative paths (that of the list)")
    group.add_argument("--ending", metavar=".jpg", help="what is added to paths that do not end so")
    group = parser.add_argument_group("answers")
    group.add_argument("--out", type=Path, help="write .csv, .parquet or .jsonl instead of CSV to standard output")
    group.add_argument("--columns", metavar="A,B", help="columns in this order, such as image_id,label")
    group.add_argument("--json", action="store_true", help="one JSON object a line instead of CSV")
    group.add_argument("--grid", type=Path, metavar="FOLDER", help="pages of 4 x 4 pictures with their predictions")
    group.add_argument("--grid-pages", type=read_count, default=10, metavar="N", help="pages at most (10)")
    group.add_argument("--strict", action="store_true", help="exit with 3 when a picture could not be read")
    group = parser.add_argument_group("computing")
    group.add_argument(
        "--workers",
        type=_read_workers,
        default=None,
        metavar="N",
        help="threads that read and decode, on Ray processes that compute; auto: one a CPU (auto)",
    )
    group.add_argument("--batch-size", type=read_count, default=BATCH, metavar="N", help=f"pictures at once ({BATCH})")
    group.add_argument(
        "--backend",
        choices=(AUTO, *BACKENDS),
        default=AUTO,
        help="what computes; auto is the one that `trainer.bench --choose` recorded for this CPU, or eager",
    )
    group.add_argument(
        "--on",
        choices=("here", "ray"),
        default="here",
        help="ray: the cluster of RAY_ADDRESS, or one started here; its nodes must see BUNDLE and PATHs (here)",
    )
    add_volume(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
