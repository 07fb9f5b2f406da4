"""What a user asks about: paths, globs, lists and URIs become parts."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from shards.dataset.dataset import Dataset, open_dataset, shorten
from shards.dataset.manifest import MANIFEST_NAME
from shards.errors import UsageError
from shards.sources.archive import is_archive
from shards.sources.find import find_sources
from shards.sources.folder import walk_pictures
from shards.sources.layout import ENDINGS, read_ending
from shards.sources.list_form import ListForm
from shards.sources.table import LIST_ENDINGS, read_text
from shards.storage.storage import open_readable
from trainer.predict.parts import Files, Folder, Objects, Packed, Part, Picture, Stored

SPLITS = ("train", "val", "test", "all")
PATHS_ALONE = ListForm(roles=("path",), option="--list-columns")
"""Of a list that names what to predict, nothing but its paths is looked for."""


class Place(NamedTuple):
    """A picture, and the number of the part that it belongs to."""

    part: int
    picture: Picture


@dataclass(frozen=True)
class Asked:
    """All that was asked about, in that order."""

    parts: list[Part]

    @property
    def count(self) -> int | None:
        """How many pictures; None where only listing them tells."""
        counts = [part.count for part in self.parts]
        return None if None in counts else sum(count or 0 for count in counts)

    def list(self) -> Iterator[Place]:
        """Yield all pictures; raises as the parts do."""
        for number, part in enumerate(self.parts):
            for picture in part.list():
                yield Place(number, picture)


def find_asked(paths: Sequence[str], lists: Sequence[Path] = (), form: ListForm = PATHS_ALONE) -> Asked:
    """Return what paths name and lists of files hold.

    Args:
        paths: Files, folders, globs, archives, CSV or Parquet lists, WebDataset tars, packed datasets or one of their
            splits (`DATASET:test`), s3:// or gs:// prefixes, and http(s):// for packed datasets and
            single pictures.
        lists: Files with a path or URI a line, paths relative to the folder of the list, or .csv and .parquet lists.
        form: How .csv and .parquet lists are to be read.

    Raises:
        UsageError: Something that is none of these, or no pictures at all.
        ShardError: A damaged archive or dataset.
        OSError: A store that cannot be reached.
    """
    if (option := form.name_given()) and not any(read_ending(str(path)) in LIST_ENDINGS for path in [*paths, *lists]):
        raise UsageError(f"{option} says how a .csv or .parquet list is read, and there is none; drop the option")
    parts = _join_files(
        [
            *(part for path in paths for part in _find(path, form)),
            *(part for path in lists for part in _read_list(path, form)),
        ]
    )
    if next(Asked(parts).list(), None) is None:
        asked = ", ".join([*map(shorten, paths), *map(str, lists)])
        raise UsageError(f"no pictures in {asked} (looked for {', '.join(sorted(ENDINGS))})")
    return Asked(parts)


def _find(path: str, form: ListForm) -> Iterable[Part]:
    location, split = _split_location(path)
    if "://" in location:
        return [_find_objects(location, split)]
    if split is not None or os.path.isfile(os.path.join(location, MANIFEST_NAME)):
        return [_open_packed(open_dataset(location), split)]
    if os.path.isdir(path):
        return [_find_in_folder(path)]
    if os.path.isfile(path):
        return [_find_file(path, form)]
    if glob.has_magic(path):
        return _find_matches(path)
    raise UsageError(f"no such picture or folder: {path}")


def _split_location(path: str) -> tuple[str, str | None]:
    """Return a dataset's location and split.

    >>> _split_location("data/cells:val"), _split_location("s3://bucket/cells")
    (('data/cells', 'val'), ('s3://bucket/cells', None))
    """
    location, colon, split = path.rpartition(":")
    return (location, split) if colon and split in SPLITS and not os.path.exists(path) else (path, None)


def _open_packed(dataset: Dataset, split: str | None) -> Packed:
    splits = list(dataset.manifest.splits) if split is None else [split]
    dataset.split(splits[0])  # is there one?
    return Packed(dataset, splits)


def _find_objects(uri: str, split: str | None) -> Part:
    ending = read_ending(shorten(uri))
    if split is None and ending in ENDINGS:
        folder, _, name = shorten(uri).rpartition("/")
        folder += uri[len(shorten(uri)) :]
        open_readable(folder)  # is it a place that can be read?
        return Objects(folder, [unquote(name)])  # the name of an object is not encoded, that in a URL is
    storage = open_readable(uri)
    if split is None and (is_archive(Path(shorten(uri))) or ending in LIST_ENDINGS):
        raise UsageError(f"{storage}: archives and lists are read from disk alone; fetch it first")
    try:
        storage.size(MANIFEST_NAME)
    except FileNotFoundError:
        if split is not None:
            raise UsageError(f"{storage} is no packed dataset (it has no {MANIFEST_NAME}); drop the split") from None
        if uri.startswith(("http://", "https://")):
            raise UsageError(
                f"{storage} is no packed dataset (it has no {MANIFEST_NAME}), and what else a web server has cannot be "
                "listed; name each picture's URL, in a file for --list where there are many, or fetch them first"
            ) from None
        return Objects(uri)
    return _open_packed(open_dataset(uri), split)


def _find_in_folder(path: str) -> Part:
    if next(walk_pictures(path), None) is None:
        names = [name for _, _, files in os.walk(path) for name in files]
        if any(read_ending(name) == ".tar" for name in names):
            return _store(path, f"{Path(path)}/")
    return Folder(path)


def _find_file(path: str, form: ListForm = PATHS_ALONE) -> Part:
    if is_archive(Path(path)):
        return _store(path, f"{Path(path)}/")
    if read_ending(path) in LIST_ENDINGS:
        return _store_list(path, form)
    return Files([path])


def _store_list(path: str, form: ListForm) -> Stored:
    where = os.path.dirname(path) if form.base is None else str(form.base)
    absolute = replace(form, base=form.base.absolute() if form.base is not None else None)
    listed = find_sources(Path(path).absolute(), unlabelled=True, form=absolute)
    return Stored(path, listed.sources, listed.store, where)


def _store(path: str, prefix: str) -> Stored:
    listed = find_sources(Path(path).absolute(), unlabelled=True)
    return Stored(path, listed.sources, listed.store, prefix)


def _find_matches(pattern: str) -> Iterable[Part]:
    """Return a part for each folder, archive and picture that a pattern matches; other files are passed over."""
    matches = sorted(glob.iglob(pattern, recursive=True))
    parts = [
        _find_in_folder(match) if os.path.isdir(match) else _find_file(match)
        for match in matches
        if os.path.isdir(match) or read_ending(match) in ENDINGS or is_archive(Path(match))
    ]
    if not parts:
        raise UsageError(f"nothing matches {pattern} that holds pictures (looked for {', '.join(sorted(ENDINGS))})")
    return parts


def _read_list(path: Path, form: ListForm) -> Iterable[Part]:
    if not path.is_file():
        raise UsageError(f"--list: no such file: {path}; give a file with the path of a picture a line, or a .csv")
    if read_ending(path.name) in LIST_ENDINGS:
        return [_store_list(str(path), form)]
    lines = (line.strip() for line in read_text(path).splitlines())
    return [
        part
        for line in lines
        if line
        for part in (_find(line, form) if "://" in line else [Files([os.path.join(path.parent, line)])])
    ]


def _join_files(parts: Iterable[Part]) -> list[Part]:
    """Return parts with one for each run of single files: a shell gives a thousand of them for `*.png`."""
    joined: list[Part] = []
    for part in parts:
        if isinstance(part, Files) and joined and isinstance(joined[-1], Files):
            joined[-1].names.extend(part.names)
        else:
            joined.append(part)
    return joined
