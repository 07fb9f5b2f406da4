"""The kinds of source, one row each. Help, error messages and tests read the table.

A path is of the first kind, from the top, that recognises it.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from shards.errors import UsageError
from shards.sources.endings import ARCHIVE_ENDINGS, ENDINGS, LIST_ENDINGS, SIDECAR
from shards.sources.list_form import ListForm
from shards.sources.location import is_dataset, is_uri, split_location
from shards.sources.model import SourceList
from shards.sources.pattern import Pattern
from shards.sources.walk import walk_files, walk_pictures


@dataclass(frozen=True)
class How:
    """How to read a source, see `find_sources`; settled: roles of a list's columns that another option fills; names:
    encoding of the names in an archive."""

    unlabelled: bool = False
    pattern: Pattern | None = None
    form: ListForm | None = None
    settled: Collection[str] = ()
    incomplete: bool = False
    names: str | None = None


@dataclass(frozen=True)
class Kind:
    """One kind of source."""

    name: str
    summary: str
    """What it is, for help and error messages: "a .zip"."""
    recognises: Callable[[str], bool]
    """Returns whether a path is of this kind, given that no kind above recognises it."""
    load: Callable[[Path, How], SourceList] | None = None
    """Lists its pictures; None: it has no labels, so that only `trainer.predict` reads it."""
    endings: tuple[str, ...] = ()
    """Endings of its files."""
    no_layout: str = ""
    """For kinds without meaningful folders, to which --layout does not apply: what the kind is instead."""
    is_list: bool = False
    """Its pictures are elsewhere, and a ListForm sets how it is read."""
    in_archive: bool = False
    """Its names come from an archive; `How.names` is their encoding."""


def find_kind(path: str) -> Kind | None:
    """Return the kind of a path, None for a missing path or a file of no kind."""
    return next((kind for kind in KINDS if kind.recognises(path)), None)


def name_kind(name: str) -> Kind | None:
    """Return the kind that a file name indicates, wherever the file is.

    >>> name_kind("s3://bucket/a.TAR.gz").name, name_kind("a.csv").is_list, name_kind("a.rar")
    ('archive', True, None)
    """
    return next((kind for kind in KINDS if kind.endings and name.lower().endswith(kind.endings)), None)


def describe(kinds: Sequence[Kind]) -> str:
    """Return the kinds in words, the most general, which is last in the table, first."""
    return "; ".join(kind.summary for kind in reversed(kinds))


def _load_folder(src: Path, how: How) -> SourceList:
    from shards.sources.folder import list_folder, scan_folder  # late imports, here and below: pyarrow and codecs
    from shards.sources.table import find_lists

    scan = scan_folder(src, unlabelled=how.unlabelled, pattern=how.pattern)
    names = [entry.name for entry in scan.entries]
    lists = [] if how.unlabelled else find_lists(names)
    try:
        listed = list_folder(src, scan, unlabelled=how.unlabelled, pattern=how.pattern, incomplete=how.incomplete)
    except UsageError as err:
        if lists and SIDECAR not in names:
            raise UsageError(f"{err}; to pack by the list in it, give {src / lists[0]}") from err
        raise
    notes = [f"{src / lists[0]} is not read; to pack by that list and not by folders, give it as SRC"] if lists else []
    return replace(listed, notes=[*listed.notes, *notes])


def _load_tars(src: Path, how: How) -> SourceList:
    from shards.sources.folder import scan_folder
    from shards.sources.webdataset import find_tars, list_tars

    names = (entry.name for entry in scan_folder(src, unlabelled=how.unlabelled).entries)
    return list_tars(src, find_tars(names), unlabelled=how.unlabelled, incomplete=how.incomplete)


def _load_list(src: Path, how: How) -> SourceList:
    from shards.sources.listing import read_list

    return read_list(src, unlabelled=how.unlabelled, form=how.form, settled=how.settled, incomplete=how.incomplete)


def _load_archive(src: Path, how: How) -> SourceList:
    from shards.sources.archive import list_archive

    return list_archive(
        src, unlabelled=how.unlabelled, pattern=how.pattern, incomplete=how.incomplete, encoding=how.names
    )


def _load_archived_list(src: Path, how: How) -> SourceList:
    from shards.sources.archived_list import read_archived_list

    return read_archived_list(
        src,
        unlabelled=how.unlabelled,
        form=how.form,
        settled=how.settled,
        incomplete=how.incomplete,
        encoding=how.names,
    )


def _is_archived_list(path: str) -> bool:
    """Return whether a path leads through an archive file to a list; since no such file exists, no other kind fits."""
    if not path.lower().endswith(LIST_ENDINGS) or os.path.exists(path):
        return False
    folders = (str(folder) for folder in Path(path).parents)
    return any(_is_file(ARCHIVE_ENDINGS, folder) for folder in folders)


def _is_split_or_dataset(path: str) -> bool:
    location, split = split_location(path)
    return split is not None or is_dataset(location)


def _holds_tars_alone(path: str) -> bool:
    return os.path.isdir(path) and next(walk_pictures(path), None) is None and _holds(path, (".tar",))


def _holds(folder: str, endings: Collection[str]) -> bool:
    return next(walk_files(folder, endings), None) is not None


def _is_glob(path: str) -> bool:
    return glob.has_magic(path) and not os.path.exists(path)


def _is_file(endings: tuple[str, ...], path: str) -> bool:
    return path.lower().endswith(endings) and os.path.isfile(path)


_PICTURES = tuple(sorted(ENDINGS))
_TARS = "a folder of tars with a label beside each picture"

KINDS = (
    Kind("uri", "s3:// or gs:// of a packed dataset or of plain pictures, http(s):// of a packed dataset or of one "
                "picture", is_uri),
    Kind("glob", "a glob in quotes", _is_glob),
    Kind("list", (
        "a .csv, .tsv or .parquet list with a column path, and for labels a column label"
    ), partial(_is_file, LIST_ENDINGS),
         _load_list, LIST_ENDINGS, no_layout="a list, whose columns give class and split", is_list=True),
    Kind("archived list", "archive.zip/list.csv for a list in an archive", _is_archived_list, _load_archived_list,
         no_layout="a list, whose columns give class and split", is_list=True, in_archive=True),
    Kind("archive", "a .zip or .tar(.gz/.bz2/.xz/.zst) of such a folder, or a WebDataset tar",
         partial(_is_file, ARCHIVE_ENDINGS), _load_archive, ARCHIVE_ENDINGS, in_archive=True),
    Kind("dataset", "a packed dataset", _is_split_or_dataset, _load_tars, no_layout=_TARS),
    Kind("tars", "a folder of WebDataset tars", _holds_tars_alone, _load_tars, no_layout=_TARS),
    Kind("folder", "a folder of pictures; for labels, in class folders, which may be inside train, val and test",
         os.path.isdir, _load_folder),
    Kind("picture", "a picture", partial(_is_file, _PICTURES), endings=_PICTURES),
)  # fmt: skip
PACKED_KINDS = tuple(kind for kind in KINDS if kind.load is not None)
