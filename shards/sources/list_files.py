"""Locating the files of a list from its cells."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from shards.sources.class_forms import list_forms
from shards.sources.endings import ENDINGS, is_ignored, read_ending
from shards.sources.folder import group_patients
from shards.sources.headings import trim
from shards.sources.layout import Entry
from shards.sources.list_form import ListForm
from shards.sources.model import FolderStore, Source, Store
from shards.sources.walk import is_folder

_FOLDERS_LOOKED_INTO = 200


class Files(Protocol):
    """Files that a list may name, by paths relative to a folder."""

    @property
    def root(self) -> Path:
        """The folder that paths are relative to, as --base names it."""
        ...

    @property
    def whole(self) -> Path:
        """The folder or archive that names of sources are relative to."""
        ...

    @property
    def store(self) -> Store: ...

    def find(self, name: str) -> Entry | None:
        """Return the file of this name, None if there is none."""
        ...

    def locate(self, name: str) -> str:
        """Return a form that is equal for all names of one file."""
        ...

    def list_nearby(self) -> Iterator[Self]:
        """Yield the same files relative to this folder and those around it."""
        ...

    def group(self, sources: list[Source]) -> list[Source]:
        """Return the sources with the PatientID of each DICOM file as its group, if it can be read."""
        ...


@dataclass(frozen=True)
class FolderFiles:
    """Files on this machine."""

    root: Path

    @property
    def whole(self) -> Path:
        return self.root

    @property
    def store(self) -> FolderStore:
        return FolderStore(self.root)

    def find(self, name: str) -> Entry | None:
        path = os.path.join(self.root, name)
        try:
            if not os.path.isfile(path):
                return None
            facts = os.stat(path)
        except (OSError, ValueError):  # ValueError: a NUL in the path
            return None
        return Entry(name, facts.st_size, facts.st_mtime_ns)

    def locate(self, name: str) -> str:
        return os.path.abspath(self.root / name)

    def list_nearby(self) -> Iterator[FolderFiles]:
        """Yield this folder, the one above it and those below it down to the second level."""
        yield self
        yield FolderFiles(self.root.parent if self.root.name else self.root / "..")
        level = [self.root]
        count = 0
        for _ in range(2):
            level = [inner for folder in level for inner in _list_folders(folder)]
            for folder in level:
                count += 1
                if count > _FOLDERS_LOOKED_INTO:
                    return
                yield FolderFiles(folder)

    def group(self, sources: list[Source]) -> list[Source]:
        return group_patients(self.store, sources)


def _list_folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as found:
            return sorted(folder / entry.name for entry in found if is_folder(entry) and not is_ignored(entry.name))
    except OSError:
        return []


def find_file(files: Files, cell: str, ending: str) -> Entry | None:
    """Return the file that a cell names: as written, without outer blanks, or with backslashes turned; each also with
    composed or decomposed accents, as the file's system may write them."""
    texts = dict.fromkeys((cell, trim(cell), trim(cell).replace("\\", "/")))
    for text in dict.fromkeys(form for each in texts for form in list_forms(each)):
        if text and (found := files.find(add_ending(text, ending))):
            return found
    return None


def add_ending(name: str, ending: str) -> str:
    """Return a name with an ending, added unless it is there."""
    return name if not ending or name.lower().endswith(ending.lower()) else name + ending


def suggest_place(files: Files, name: str, form: ListForm) -> str:
    """Return `; ` and the options with which a row's file would be found, if it is nearby."""
    endings: Sequence[str] = [form.ending]
    if not form.ending:
        endings = ["", *sorted(ENDINGS)] if read_ending(name) not in ENDINGS else [""]
    if not name or os.path.isabs(name):
        return "; --base DIR sets another folder"
    for nearby in files.list_nearby():
        for ending in endings:
            if file := find_file(nearby, name, ending):
                base = [] if nearby.root == files.root else ["--base", str(nearby.root)]
                words = [*base, *(["--ending", ending] if ending and not form.ending else [])]
                return f"; give {shlex.join(words)} for '{nearby.whole / file.name}'"
    return ", or to the folder that --base DIR sets"
