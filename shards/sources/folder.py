"""Pictures in folders: class folders, split folders above them, or any tree without labels."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from shards.cli.sentences import count_things
from shards.errors import ShardError, UsageError
from shards.sources.content import is_picture, may_be_dicom
from shards.sources.endings import DICOM_ENDINGS, ENDINGS, is_ignored, read_ending
from shards.sources.layout import Entry, lay_out
from shards.sources.model import FolderStore, Source, SourceList
from shards.sources.pattern import Pattern
from shards.sources.sidecar import apply_sidecar, read_columns
from shards.sources.split_words import read_splits
from shards.sources.walk import Identity, identify, is_folder


@dataclass
class Scan:
    """The visible files and folders below a folder. unusable: names of pictures, and of links that may be folders,
    behind which there is no file, with the reason."""

    entries: list[Entry] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    unusable: list[tuple[str, str]] = field(default_factory=list)


def list_folder(
    root: Path, scan: Scan, *, unlabelled: bool = False, pattern: Pattern | None = None, incomplete: bool = False
) -> SourceList:
    """Return the pictures found by a scan of `root`, sorted by name, so that every machine lists them in the same
    order.

    A file `samples.csv` in `root` with columns path and weight, group or both sets the loss weight and group of single
    pictures. The group of a DICOM file is its PatientID.

    Raises:
        UsageError: As `lay_out`, or an invalid `samples.csv`.
    """
    layout = lay_out(
        root, scan.entries, unlabelled=unlabelled, pattern=pattern, folders=scan.folders, incomplete=incomplete
    )
    store = FolderStore(root)
    sources, more = apply_sidecar(root, group_patients(store, layout.sources))
    notes = layout.notes + more + _describe_unusable(scan)
    return SourceList(
        sources,
        layout.classes,
        layout.left_out,
        store,
        list(layout.classes),
        notes=notes,
        lost=layout.lost,
        root=root,
        gives=read_columns(root) - {"path"},
    )


def scan_folder(root: Path, *, unlabelled: bool = False, pattern: Pattern | None = None) -> Scan:
    """Return the visible files below `root`; symbolic links are followed.

    Args:
        unlabelled: Folders have no meaning.
        pattern: The meaning of folders, if the user gives it.

    Raises:
        UsageError: No such folder, or a name that is not UTF-8.
        OSError: A folder that cannot be listed: its pictures would be missed silently.
    """
    if not root.is_dir():
        raise UsageError(f"no such folder: {root}; give a folder that holds one subfolder of pictures per class")
    scan = Scan()

    def take(name: str, found: os.DirEntry[str]) -> None:
        try:
            facts = found.stat()
        except OSError as err:
            scan.unusable.append((name, err.strerror or str(err)))
            return
        if stat.S_ISREG(facts.st_mode):
            odd = may_be_dicom(found.name) and is_picture(found.name, found.path)
            scan.entries.append(Entry(name, facts.st_size, facts.st_mtime_ns, picture=odd))
        else:
            scan.unusable.append((name, "not a file"))

    _Walk(root, take, scan.folders.append).walk_root(0 if unlabelled else len(pattern.words) if pattern else None)
    _refuse_odd_names(root, scan)
    scan.unusable = sorted((name, reason) for name, reason in scan.unusable if read_ending(name) in {"", *ENDINGS})
    return scan


class _Walk:
    """Visits visible files. In each scope (a class folder), a real folder is visited once despite several links.

    A link back to a folder above is not followed: it would bring in the pictures of all other classes.
    """

    def __init__(self, root: Path, take: Callable[[str, os.DirEntry[str]], None], enter: Callable[[str], None]) -> None:
        self._root, self._take, self._enter = os.fspath(root), take, enter
        above = [root, *root.absolute().parents]
        self._above: set[Identity] = {identify(os.fspath(folder)) for folder in above}

    def walk_root(self, levels: int | None) -> None:
        """Visit all files.

        levels: Depth of the folders that are each a scope; 0: the whole tree is one. None: each class folder is one, at
        depth 2 below a folder named like a split, otherwise at depth 1.
        """
        tops = self._visit("", self._root)
        splits = read_splits([name for name, _ in tops], affixes=True)
        for name, folder in tops:
            if levels == 0:
                self._walk(name, folder, self._above)
            else:
                self._walk_scopes(name, folder, (levels or (2 if name in splits else 1)) - 1, self._above)

    def _walk_scopes(self, name: str, folder: str, levels: int, above: set[Identity]) -> None:
        if levels == 0:
            self._walk(name, folder, set(above))
            return
        for inner, path in self._visit(f"{name}/", folder):
            self._walk_scopes(inner, path, levels - 1, {*above, identify(folder)})

    def _walk(self, name: str, folder: str, seen: set[Identity]) -> None:
        identity = identify(folder)
        if identity in seen:
            return
        seen.add(identity)
        for inner, path in self._visit(f"{name}/", folder):
            self._walk(inner, path, seen)

    def _visit(self, prefix: str, folder: str) -> list[tuple[str, str]]:
        """Take the files of one folder; return names and paths of its subfolders in order."""
        folders = []
        with os.scandir(folder) as listing:
            for found in listing:
                if is_ignored(found.name):
                    continue
                if is_folder(found):
                    folders.append((prefix + found.name, found.path))
                    self._enter(prefix + found.name)
                else:
                    self._take(prefix + found.name, found)
        return sorted(folders)


def _refuse_odd_names(root: Path, scan: Scan) -> None:
    for entry in scan.entries:
        try:
            entry.name.encode()
        except UnicodeEncodeError as err:
            raise UsageError(
                f"the name {os.fsencode(entry.name)!r} below {root} is not UTF-8, so no index can hold it; rename it"
            ) from err


def _describe_unusable(scan: Scan) -> list[str]:
    if not scan.unusable:
        return []
    name, reason = scan.unusable[0]
    names = count_things(len(scan.unusable), "name is", "names are")
    return [
        f"{names} left out, because they lead to no file ('{name}': {reason}); restore what the links point to, or "
        "remove them"
    ]


def group_patients(store: FolderStore, sources: list[Source]) -> list[Source]:
    """Return the sources with the PatientID of each DICOM file as its group, unless it already has one.

    Raises:
        UsageError: There are DICOM files, but the library that reads them is not installed.
    """
    return [_group_patient(store, source) if is_dicom_name(source.name) else source for source in sources]


def is_dicom_name(name: str) -> bool:
    """Return whether a picture is DICOM by its name: a DICOM ending, or none of a picture, so that its content
    decided.
    """
    ending = read_ending(name)
    return ending in DICOM_ENDINGS or ending not in ENDINGS


def _group_patient(store: FolderStore, source: Source) -> Source:
    from shards.pictures.dicom import read_patient

    if source.group:
        return source
    try:
        return replace(source, group=read_patient(store.root / source.name))
    except (ShardError, OSError):  # not DICOM despite its ending: the audit will report it
        return source


def list_pictures(paths: list[Path]) -> list[Path]:
    """Return pictures without labels: files as given, folders with all pictures below them, sorted.

    Raises:
        UsageError: A path that does not exist, or no pictures at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            entries = scan_folder(path, unlabelled=True).entries
            found += sorted(path / each.name for each in entries if each.picture or read_ending(each.name) in ENDINGS)
        elif path.is_file():
            found.append(path)
        else:
            raise UsageError(f"no such picture or folder: {path}")
    if not found:
        raise UsageError(f"no pictures in {', '.join(map(str, paths))} (looked for {', '.join(sorted(ENDINGS))})")
    return found
