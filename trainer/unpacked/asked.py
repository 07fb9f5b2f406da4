"""Resolve the sources that a user names: paths, globs, lists and URIs."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from shards.dataset.dataset import Dataset, open_dataset
from shards.errors import UsageError
from shards.sources.endings import ENDINGS
from shards.sources.find import find_sources
from shards.sources.kinds import Kind, find_kind, name_kind
from shards.sources.list_form import ListForm
from shards.sources.location import is_uri, split_location
from shards.sources.model import MANIFEST_NAME
from shards.sources.table import read_text
from shards.storage.shown import show_location
from shards.storage.storage import open_readable
from trainer.unpacked.parts import Files, Folder, Objects, Packed, Part, Picture, Stored

logger = logging.getLogger(__name__)

PATHS_ALONE = ListForm(roles=("path",), option="--list-columns")
"""The default form of a list of pictures to predict: only its paths are read."""


@dataclass(frozen=True)
class How:
    """How lists and archives are read, see `find_asked`."""

    form: ListForm
    names: str | None


class Place(NamedTuple):
    """A picture, and the number of the source that it belongs to."""

    part: int
    picture: Picture


@dataclass(frozen=True)
class Asked:
    """All named sources, in the given order."""

    parts: list[Part]

    @property
    def count(self) -> int | None:
        """Number of pictures; None if they must be listed to know it."""
        counts = [part.count for part in self.parts]
        return None if None in counts else sum(count or 0 for count in counts)

    def list(self) -> Iterator[Place]:
        """Yield all pictures; raises the errors of the sources."""
        for number, part in enumerate(self.parts):
            for picture in part.list():
                yield Place(number, picture)


def find_asked(
    paths: Sequence[str], lists: Sequence[Path] = (), form: ListForm = PATHS_ALONE, names: str | None = None
) -> Asked:
    """Return the sources named by paths and by lists of files.

    Args:
        paths: Paths, each of one of KINDS; `DATASET:test` is one split of a packed dataset.
        lists: Files with one path or URI per line, relative to the folder of the list, or .csv and .parquet lists.
        form: How .csv and .parquet lists are read.
        names: Encoding of names for which an archive declares none; None: guess, with a note in the log.

    Raises:
        UsageError: A path of another kind, no pictures at all, or an option that applies to none of the sources.
        ShardError: An archive or dataset is damaged.
        OSError: A store cannot be reached.
    """
    kinds = [name_kind(str(path)) for path in [*paths, *lists]]
    if (option := form.name_given()) and not any(kind and kind.is_list for kind in kinds):
        raise UsageError(f"{option} applies to .csv and .parquet lists, and none is given; remove the option")
    if names is not None and not any(kind and kind.in_archive for kind in kinds):
        raise UsageError("--names applies to archives (.zip, .tar), and none is given; remove the option")
    how = How(form, names)
    parts = _join_files(
        [
            *(part for path in paths for part in _find(path, how)),
            *(part for path in lists for part in _read_list(path, how)),
        ]
    )
    if next(Asked(parts).list(), None) is None:
        asked = ", ".join([*map(show_location, paths), *map(str, lists)])
        raise UsageError(f"no pictures in {asked} (looked for {', '.join(sorted(ENDINGS))})")
    return Asked(parts)


def _find(path: str, how: How) -> Iterable[Part]:
    kind = find_kind(path)
    if kind is not None:
        find = PARTS.get(kind.name)
        return find(path, how) if find else [_store(path, how, kind)]
    if os.path.isfile(path):  # named explicitly, so treated as a picture
        return [Files([path])]
    raise UsageError(f"no such picture or folder: {path}")


def _store(path: str, how: How, kind: Kind) -> Stored:
    """Return the pictures that `shards.sources` lists."""
    where, form = f"{Path(path)}/", how.form
    if kind.is_list:
        where = os.path.dirname(path) if form.base is None else str(form.base)
        form = replace(form, base=form.base.absolute() if form.base is not None else None)
    listed = find_sources(
        Path(path).absolute(),
        unlabelled=True,
        form=form if kind.is_list else None,
        names=how.names if kind.in_archive else None,
    )
    if kind.in_archive:
        for note in listed.notes:
            logger.info("%s", note)
    return Stored(path, listed.sources, listed.store, where)


def _find_packed(path: str, _: How) -> Iterable[Part]:
    location, split = split_location(path)
    return [_open_packed(open_dataset(location), split)]


def _open_packed(dataset: Dataset, split: str | None) -> Packed:
    splits = list(dataset.manifest.splits) if split is None else [split]
    dataset.split(splits[0])  # raises if the split does not exist
    return Packed(dataset, splits)


def _cut_query(uri: str) -> str:
    return uri.partition("?")[0].rstrip("/")


def _find_objects(path: str, _: How) -> Iterable[Part]:
    uri, split = split_location(path)
    kind = name_kind(_cut_query(uri)) if split is None else None
    if kind is not None and kind.load is None:
        folder, _slash, name = _cut_query(uri).rpartition("/")
        folder += uri[len(_cut_query(uri)) :]
        open_readable(folder)  # raises if it cannot be read
        return [Objects(folder, [unquote(name)])]  # names in URLs are percent-encoded, object names are not
    storage = open_readable(uri)
    if kind is not None:
        raise UsageError(f"{storage}: {kind.name}s can only be read from disk; download it first")
    try:
        storage.size(MANIFEST_NAME)
    except FileNotFoundError:
        if split is not None:
            raise UsageError(
                f"{storage} is not a packed dataset (it has no {MANIFEST_NAME}); remove the split"
            ) from None
        if uri.startswith(("http://", "https://")):
            raise UsageError(
                f"{storage} is not a packed dataset (it has no {MANIFEST_NAME}), and a web server's files cannot be "
                "listed; give each picture's URL, many of them in a file with --list, or download them first"
            ) from None
        return [Objects(uri)]
    return [_open_packed(open_dataset(uri), split)]


def _find_matches(pattern: str, how: How) -> Iterable[Part]:
    """Return the sources that match a pattern, except lists, which lie beside their pictures, and other files."""
    matches = sorted(glob.iglob(pattern, recursive=True))
    kinds = [(match, find_kind(match)) for match in matches]
    parts = [part for match, kind in kinds if kind is not None and not kind.is_list for part in _find(match, how)]
    if not parts:
        raise UsageError(f"no pictures match {pattern} (looked for {', '.join(sorted(ENDINGS))})")
    return parts


def _read_list(path: Path, how: How) -> Iterable[Part]:
    if not path.is_file():
        raise UsageError(f"--list: no such file: {path}; give a file with one picture path per line, or a .csv")
    kind = name_kind(path.name)
    if kind is not None and kind.is_list:
        return [_store(str(path), how, kind)]
    lines = (line.strip() for line in read_text(path).splitlines())
    return [
        part
        for line in lines
        if line
        for part in (_find(line, how) if is_uri(line) else [Files([os.path.join(path.parent, line)])])
    ]


PARTS: dict[str, Callable[[str, How], Iterable[Part]]] = {
    "uri": _find_objects,
    "dataset": _find_packed,
    "folder": lambda path, _: [Folder(path)],
    "picture": lambda path, _: [Files([path])],
    "glob": _find_matches,
}
"""Readers for kinds of sources that are streamed or remote, instead of the listing function of their row."""


def _join_files(parts: Iterable[Part]) -> list[Part]:
    """Merge consecutive single files into one source: a shell expands `*.png` to thousands."""
    joined: list[Part] = []
    for part in parts:
        if isinstance(part, Files) and joined and isinstance(joined[-1], Files):
            joined[-1].names.extend(part.names)
        else:
            joined.append(part)
    return joined
