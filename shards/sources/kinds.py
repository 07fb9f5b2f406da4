"""What a path may be: a row for each kind of source. Help, refusals and tests read the table.

A path is of the first kind, from the top of the table, that recognises it.
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
    """How a source is to be read, see `find_sources`; settled: roles of a list that another option fills. names: the
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
    """What it is, for help and refusals: "a .zip"."""
    recognises: Callable[[str], bool]
    """Says whether a path is of this kind; rows above have said no."""
    load: Callable[[Path, How], SourceList] | None = None
    """Lists its pictures; None: it has no labels to be packed by, and `trainer.predict` alone reads it."""
    endings: tuple[str, ...] = ()
    """Of files of this kind."""
    no_layout: str = ""
    """Why --layout says nothing of it: what it is instead of folders that mean something."""
    is_list: bool = False
    """Its pictures lie elsewhere, and a ListForm says how it is read."""
    in_archive: bool = False
    """Its files have the names that an archive gives them, of which `How.names` says the encoding."""


def find_kind(path: str) -> Kind | None:
    """Return what a path is, None for what is not there and for a file of no kind."""
    return next((kind for kind in KINDS if kind.recognises(path)), None)


def name_kind(name: str) -> Kind | None:
    """Return the kind of file that a name says, wherever the file lies.

    >>> name_kind("s3://bucket/a.TAR.gz").name, name_kind("a.csv").is_list, name_kind("a.rar")
    ('archive', True, None)
    """
    return next((kind for kind in KINDS if kind.endings and name.lower().endswith(kind.endings)), None)


def describe(kinds: Sequence[Kind]) -> str:
    """Return what kinds there are in words, the most general one, which is asked last, first."""
    return "; ".join(kind.summary for kind in reversed(kinds))


def _load_folder(src: Path, how: How) -> SourceList:
    from shards.sources.folder import list_folder, scan_folder  # late, here and below: pyarrow and codecs
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
    """Return whether a path goes through the file of an archive to a list; no file is there, so nothing else takes it."""
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
_TARS = "a folder of tars, in which each picture has its label beside it"

KINDS = (
    Kind("uri", "s3:// or gs:// of a packed dataset or of plain pictures, http(s):// of a packed dataset or of one "
         "picture", is_uri),
    Kind("glob", "a glob in quotes", _is_glob),
    Kind("list", "a .csv, .tsv or .parquet list with a column path, for labels label", partial(_is_file, LIST_ENDINGS),
         _load_list, LIST_ENDINGS, no_layout="a list, whose columns say class and split", is_list=True),
    Kind("archived list", "archive.zip/list.csv for a list in an archive", _is_archived_list, _load_archived_list,
         no_layout="a list, whose columns say class and split", is_list=True, in_archive=True),
    Kind("archive", "a .zip or .tar(.gz/.bz2/.xz/.zst) of such a folder, or a WebDataset tar",
         partial(_is_file, ARCHIVE_ENDINGS), _load_archive, ARCHIVE_ENDINGS, in_archive=True),
    Kind("dataset", "a packed dataset", _is_split_or_dataset, _load_tars, no_layout=_TARS),
    Kind("tars", "a folder of WebDataset tars", _holds_tars_alone, _load_tars, no_layout=_TARS),
    Kind("folder", "a folder of pictures, for labels in class folders or in train/val/test above those",
         os.path.isdir, _load_folder),
    Kind("picture", "a picture", partial(_is_file, _PICTURES), endings=_PICTURES),
)  # fmt: skip
PACKED_KINDS = tuple(kind for kind in KINDS if kind.load is not None)
