"""What `trainer.evaluate` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import model_validator

from shards.cli.arguments import check_count
from shards.cli.options import Location, Options
from shards.errors import UsageError


class EvaluateOptions(Options):
    """A bundle and the split that it is evaluated on, or saved rows; and what is asked of them.

    Raises:
        UsageError: Neither of the two, or both.
    """

    bundle: Path | None = None
    """Folder of the bundle."""
    data: Location | None = None
    """A packed dataset, or a folder, an archive or a list of labelled pictures, and the split: data/elpv-shards:test;
    without one test, or the only one."""
    rows: Path | None = None
    """predictions.parquet of an evaluation, in place of `bundle` and `data`."""
    out: Path | None = None
    """Folder for the files; None: evaluations/SPLIT, or one beside `rows`."""
    positive: str | None = None
    """Class that is looked for; None: what bundle or dataset say, else of two the second."""
    threshold: float | None = None
    """Predict the positive class where its probability is at least this; None: the most probable one."""
    by: tuple[str, ...] = ()
    """Columns to slice by: group, width, height, mode, bytes, or one of `columns`."""
    columns: Path | None = None
    """CSV or Parquet with sample_id or path and more about the samples."""
    layout: str | None = None
    """What the folders of pictures mean, see `find_sources`; None: their names tell."""
    group_regex: str | None = None
    """What belongs together by the paths of pictures that are not packed, see `group_by_regex`."""
    names: str | None = None
    """How the names in an archive are encoded that does not say it; None: guess."""
    list_columns: str | None = None
    """Columns of a list by what they are: path=NAME,label=NAME; None: the usual names."""
    base: Path | None = None
    """Folder of a list's relative paths; None: that of the list."""
    ending: str | None = None
    """What is added to paths of a list that do not end so: .jpg."""
    one_hot: str | None = None
    """Columns of 0 and 1 of a list, one for each class."""
    labels_as: str | None = None
    """What separates several labels of a list, see `parse_labels`."""
    empty_labels: bool = False
    """Rows of a list without a label show none of the classes."""
    num_ranks: int = 1
    """Processes that evaluate together; the numbers are the same."""
    workers: int = 2
    """Threads of a process that decode."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [self.bundle is not None, self.data is not None]
        if not all(given) if self.rows is None else any(given):
            raise UsageError(
                "name a bundle and a part, such as runs/demo/bundle data/elpv-shards:test, or --rows alone"
            )
        check_count("--workers", self.workers, of="threads")
        return self
