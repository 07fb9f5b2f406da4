"""Predict pictures with a bundle, to a file, as text, or as rows."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from shards.cli.progress import Progress
from shards.errors import UsageError
from shards.sources.list_form import ListForm, parse_form
from shards.workers.openmp import count_cpus
from trainer.contract.bundle import BundlePage, read_bundle_page
from trainer.contract.compute.choice import load_with_backend
from trainer.predict.answer import Row, answer_stream
from trainer.predict.grid import PER_PAGE, write_pages
from trainer.predict.options import PredictOptions
from trainer.predict.partial import open_partial
from trainer.predict.tables import Columns, LineWriter, choose_columns, write_rows
from trainer.unpacked.ahead import Speed
from trainer.unpacked.asked import PATHS_ALONE, Asked, Place, find_asked
from trainer.unpacked.parts import write_name
from trainer.unpacked.unreadable import UNREADABLE, write_unreadable

logger = logging.getLogger(__name__)
Report = Callable[[str], object]


@dataclass(frozen=True)
class Predicted:
    """The result: number of pictures, number of unreadable ones, and a row for each.

    rows is empty if they went to a file or stream, so that memory never holds more than a few batches.
    """

    pictures: int
    unreadable: int
    rows: list[Row]


def predict(options: PredictOptions, stream: TextIO | None = None, report: Report = lambda _: None) -> Predicted:
    """Label pictures.

    Args:
        options: The options; with `out`, a stopped call resumes.
        stream: Gets the answers as text, batch by batch, if there is no `out`; None: they are returned.
        report: Called with a line for each unreadable picture, as soon as it is found.

    Raises:
        UsageError: There is no bundle or no pictures, a column is unknown, or a back end is not available.
        ShardError: The bundle, dataset or archive is damaged.
        OSError: A store cannot be reached.
    """
    page = read_bundle_page(options.bundle)
    columns = choose_columns(page, options.columns)
    asked = find_asked(options.paths, options.lists, _read_form(options), options.names)
    answers = _Answers(options, asked, report)
    tally = _Tally(options.grid_pages * PER_PAGE if options.grid else 0)
    rows: list[Row] = []
    if options.out is not None:
        _write_file(options.out, answers, page, columns, tally)
    elif stream is not None:
        _write_stream(stream, answers, columns, tally)
    else:
        rows = [tally.count(row) for row in answers.rows()]
    if options.grid:
        pages = write_pages(options.grid, page, asked, tally.shown)
        logger.info("%s: %s pages", options.grid, f"{pages:,}")
    return Predicted(tally.pictures, tally.unreadable, rows)


def _read_form(options: PredictOptions) -> ListForm:
    form = PATHS_ALONE
    return parse_form(
        option=form.option, columns=options.list_columns, base=options.base, ending=options.ending, roles=form.roles
    )


class _Tally:
    """Counts of pictures so far; shown: the first answers with their positions, for pages of pictures."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.pictures = self.unreadable = 0
        self.shown: list[tuple[int, Row]] = []

    def count(self, row: Row) -> Row:
        """Count a row and return it."""
        if row.answer is None:
            self.unreadable += 1
        elif len(self.shown) < self._most:
            self.shown.append((self.pictures, row))
        self.pictures += 1
        return row


@dataclass(frozen=True)
class _Answers:
    """The answers for all sources, computed here or on a cluster."""

    options: PredictOptions
    asked: Asked
    report: Report

    def rows(self) -> Iterator[Row]:
        """Yield all rows."""
        for batch in self.batches(self.asked.list(), 0):
            yield from batch

    def batches(self, places: Iterable[Place], done: int) -> Iterator[list[Row]]:
        """Yield batches of rows for the places after the first `done`, showing progress."""
        total = self.asked.count
        if total is None and sys.stderr.isatty():
            total = sum(1 for _ in self.asked.list())  # for the progress bar; listing is cheap compared with decoding
        with contextlib.closing(Progress("predict", total, done)) as progress:
            for batch in self._compute(places):
                for row in batch:
                    if row.unreadable is not None:
                        self.report(f"{row.path}: {row.unreadable}")
                done += len(batch)
                progress.show(done)
                yield batch

    def _compute(self, places: Iterable[Place]) -> Iterator[list[Row]]:
        options = self.options
        # Load it for a cluster too, so that a faulty bundle is reported before actors start.
        bundle, _ = load_with_backend(options.bundle, backend=options.backend)
        if options.on == "ray":
            from trainer.predict.ray import Asking, answer_on_ray  # the only way in for Ray

            asking = Asking(str(options.bundle.absolute()), options.backend, self.asked)
            return answer_on_ray(asking, places, options.batch_size, options.workers)
        return answer_stream(bundle, self.asked, places, Speed(options.workers or count_cpus(), options.batch_size))


def _write_stream(stream: TextIO, answers: _Answers, columns: Columns, tally: _Tally) -> None:
    writer = LineWriter(stream.write, answers.options.form, columns)
    for row in answers.rows():
        if tally.count(row).answer is not None:
            writer.write(row)
    writer.close()


def _refuse_own_input(out: Path, paths: list[str]) -> None:
    """Raise UsageError if the output would overwrite a source."""
    for path in paths:
        if out.exists() and os.path.exists(path) and os.path.samefile(out, path):
            raise UsageError(f"--out {out} is a source and would be overwritten; choose another file")


def _write_file(out: Path, answers: _Answers, page: BundlePage, columns: Columns, tally: _Tally) -> None:
    options = answers.options
    paths = [*options.paths, *map(str, options.lists)]
    said = {
        "bundle": page.fingerprint(),
        "PATH": [write_name(path if "://" in path else os.path.abspath(path)) for path in paths],
        "--batch-size": options.batch_size,
        "--backend": options.backend,
    }
    _refuse_own_input(out, paths)
    if out.exists():
        logger.info("%s exists; its answers are replaced once all new ones are complete", out)
    with open_partial(out, said) as partial:
        places = answers.asked.list()
        done = partial.resume(places, options.batch_size)
        if done:
            logger.info("%s pictures are already done; resuming from there", f"{done:,}")
        for batch in answers.batches(places, done):
            partial.append(batch)
        for row in write_rows(out, options.form, columns, partial.rows()):
            tally.count(row)
        bad = ((row.path, row.unreadable) for row in partial.rows() if row.unreadable is not None)
        listed = out.with_name(f"{out.name}.{UNREADABLE}")
        if write_unreadable(listed, bad):
            logger.info("%s lists the unreadable pictures", listed)
