"""Options of `trainer.evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import model_validator

from shards.cli.arguments import check_count
from shards.cli.options import Location, Options, Output
from shards.errors import UsageError


class EvaluateOptions(Options):
    """A bundle and a split to evaluate it on, or saved rows, and evaluation options.

    Raises:
        UsageError: Neither bundle nor rows are given, or both.
    """

    bundle: Path | None = None
    """Folder of the bundle."""
    data: Location | None = None
    """A packed dataset, or a folder, an archive or a list of labelled pictures, with a split: data/elpv-shards:test;
    without a split: test, or the only one."""
    rows: Path | None = None
    """predictions.parquet of an evaluation, instead of `bundle` and `data`."""
    out: Output | None = None
    """Output folder; None: evaluations/SPLIT (one beside it where that holds something else), or one beside `rows`."""
    positive: str | None = None
    """Positive class; None: that of the bundle or dataset, else the second of two."""
    threshold: float | None = None
    """Predict the positive class if its probability is at least this; None: the most probable class."""
    by: tuple[str, ...] = ()
    """Columns to slice by: group, width, height, mode, bytes, or one of `columns`."""
    columns: Path | None = None
    """CSV or Parquet with sample_id or path and more columns."""
    layout: str | None = None
    """Meaning of the folders of pictures, see `find_sources`; None: detected from their names."""
    group_regex: str | None = None
    """Groups of unpacked pictures by path, see `group_by_regex`."""
    names: str | None = None
    """Encoding of names in an archive that does not state it; None: guess."""
    list_columns: str | None = None
    """Column names of a list by meaning: path=NAME,label=NAME; None: the usual names."""
    base: Path | None = None
    """Folder of a list's relative paths; None: that of the list."""
    ending: str | None = None
    """Extension appended to paths of a list that lack it: .jpg."""
    one_hot: str | None = None
    """Columns of 0 and 1 of a list, one for each class."""
    labels_as: str | None = None
    """Separator of several labels in a list, see `parse_labels`."""
    empty_labels: bool = False
    """Whether rows of a list without a label show none of the classes."""
    num_ranks: int = 1
    """Number of processes; does not change the results."""
    workers: int = 2
    """Decoding threads per process."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [self.bundle is not None, self.data is not None]
        if not all(given) if self.rows is None else any(given):
            raise UsageError(
                "name a bundle and a split, such as runs/demo/bundle data/elpv-shards:test, or only --rows"
            )
        check_count("--workers", self.workers, of="threads")
        return self
