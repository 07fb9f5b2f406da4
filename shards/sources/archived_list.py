"""A list in an archive, given as `pictures.zip/labels.csv`, whose pictures are in the same archive."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from shards.errors import UsageError
from shards.sources.archive import Archive, describe_links, describe_patients, refuse_doubles, scan_archive
from shards.sources.endings import LIST_ENDINGS, read_ending
from shards.sources.folder import is_dicom_name
from shards.sources.layout import Entry
from shards.sources.list_form import ListForm
from shards.sources.listing import list_known, list_rows
from shards.sources.model import Source, SourceList, Store
from shards.sources.table import read_table


@dataclass(frozen=True)
class ArchiveFiles:
    """The files of an archive by name, relative to one of its folders, '' for the top."""

    path: Path
    store: Store
    entries: dict[str, Entry]
    folder: str = ""

    @property
    def root(self) -> Path:
        return self.path / self.folder

    @property
    def whole(self) -> Path:
        return self.path

    def find(self, name: str) -> Entry | None:
        return self.entries.get(self.locate(name))

    def locate(self, name: str) -> str:
        return posixpath.normpath(posixpath.join(self.folder, name))

    def list_nearby(self) -> Iterator[ArchiveFiles]:
        """Yield the same files relative to each folder, this one first."""
        yield self
        for folder in sorted({posixpath.dirname(name) for name in self.entries}):
            yield replace(self, folder=folder)

    def group(self, sources: list[Source]) -> list[Source]:
        return sources


def read_archived_list(
    path: Path,
    *,
    unlabelled: bool = False,
    form: ListForm | None = None,
    settled: Collection[str] = (),
    incomplete: bool = False,
    encoding: str | None = None,
) -> SourceList:
    """Return the pictures of a list in an archive; its paths are relative to the list's folder there.

    Args:
        path: The archive's path, a slash, and the list's name in it.
        unlabelled, form, settled, incomplete: As for `read_list`; the base folder of the form is one in the archive.
        encoding: As for `scan_archive`.

    Raises:
        UsageError: As `read_list` and `scan_archive`, or no such list.
        ShardError: A damaged archive, or one with two files of the list's or a picture's name.
    """
    place, form = next(each for each in path.parents if each.is_file()), form or ListForm()
    archive = scan_archive(place, encoding)
    entries = {posixpath.normpath(entry.name): entry for entry in archive.listed.entries}
    name = path.relative_to(place).as_posix()
    if name not in entries:
        lists = [other for other in entries if read_ending(other) in LIST_ENDINGS]
        there = f"its lists are {', '.join(sorted(lists)[:5])}" if lists else f"it has none ({', '.join(LIST_ENDINGS)})"
        raise UsageError(f"there is no list '{name}' in {place}; {there}")
    table = read_table(path, list_known(form), _read(archive, entries[name]))
    files = ArchiveFiles(place, archive.store, entries, _find_base(place, posixpath.dirname(name), form))
    listed = list_rows(path, table, files, unlabelled=unlabelled, form=form, settled=settled, incomplete=incomplete)
    wanted = {source.name for source in listed.sources}
    refuse_doubles(place, (entry.name for entry in archive.listed.entries if entry.name in {*wanted, name}))
    notes = [*listed.notes, *archive.listed.notes, *describe_links(place, archive.listed.links)]
    if any(is_dicom_name(source.name) and not source.group for source in listed.sources):
        notes.append(describe_patients(place))
    return replace(listed, notes=notes)


def _find_base(place: Path, usual: str, form: ListForm) -> str:
    """Return the archive's folder that paths are relative to; --base may name it with or without the archive."""
    if form.base is None:
        return usual
    inside = form.base.relative_to(place) if form.base.is_relative_to(place) else form.base
    return inside.as_posix().removeprefix(".")


def _read(archive: Archive, entry: Entry) -> bytes:
    return archive.store.read(Source(entry.name, (), None, entry.size, entry.stamp, entry.offset))
