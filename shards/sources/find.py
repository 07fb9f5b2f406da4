"""The one door to pictures: whatever a path is, it becomes a SourceList."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from shards.errors import UsageError
from shards.sources.alike import Alike, settle_classes
from shards.sources.archive import ARCHIVE_ENDINGS, is_archive, list_archive
from shards.sources.class_names import name_classes
from shards.sources.folder import list_folder, scan_folder
from shards.sources.groups import group_by_regex
from shards.sources.layout import ENDINGS, SIDECAR, read_ending
from shards.sources.list_form import ListForm
from shards.sources.listing import read_list
from shards.sources.model import SourceList
from shards.sources.pattern import Pattern, parse_pattern
from shards.sources.table import LIST_ENDINGS, find_lists
from shards.sources.webdataset import find_tars, list_tars


def find_sources(
    src: Path,
    *,
    unlabelled: bool = False,
    layout: str | None = None,
    class_names: Path | None = None,
    group_regex: str | None = None,
    form: ListForm | None = None,
    alike: Alike = "refuse",
    drop_empty: bool = False,
) -> SourceList:
    """Return the pictures that `src` holds, whatever it is.

    Args:
        src: Folder of class folders or of train/val/test above those; a .zip, .tar, .tar.gz or .tar.zst of one; a
            .csv or .parquet list; a WebDataset tar or a folder of these.
        unlabelled: Take all pictures, without labels, as split `all`.
        layout: What the folders of a folder or an archive mean, see `parse_pattern`; None: their names tell.
        class_names: File of display names, see `read_class_names`.
        group_regex: See `group_by_regex`.
        form: What the user says about a list, see `ListForm`.
        alike, drop_empty: See `settle_classes`.

    Raises:
        UsageError: Nothing there that can be packed, or an option that does not fit it.
        ShardError: A damaged archive or shard.
        OSError: A folder that cannot be listed.
    """
    pattern = parse_pattern(layout) if layout is not None else None
    if pattern and unlabelled:
        raise UsageError("--layout says which folders are classes, and --unlabelled takes none; give one of them")
    if read_ending(src.name) in LIST_ENDINGS and src.is_file():
        _refuse_pattern(src, "a list, whose columns say class and split", pattern)
        settled = ("group",) if group_regex else ()
        listed = read_list(src, unlabelled=unlabelled, form=form, settled=settled)
    else:
        listed = _find(src, unlabelled, pattern)
        if form is not None and (option := form.name_given()):
            raise UsageError(f"{option} says how a list is read, and {src} is none; give a .csv, or drop the option")
    listed = settle_classes(src, listed, alike, drop_empty)
    if class_names is not None:
        if unlabelled:
            raise UsageError("--class-names names classes, and --unlabelled leaves none; give one of them")
        listed = replace(listed, display_names=name_classes(class_names, listed.classes))
    return group_by_regex(listed, group_regex) if group_regex else listed


def _find(src: Path, unlabelled: bool, pattern: Pattern | None) -> SourceList:
    if src.is_dir():
        return _find_in_folder(src, unlabelled, pattern)
    if not src.exists():
        raise UsageError(f"no such folder: {src}; give a folder that holds one subfolder of pictures per class")
    if is_archive(src):
        return list_archive(src, unlabelled=unlabelled, pattern=pattern)
    raise UsageError(
        f"{src} is neither a folder nor a file that can be packed ({', '.join((*ARCHIVE_ENDINGS, *LIST_ENDINGS))})"
    )


def _find_in_folder(src: Path, unlabelled: bool, pattern: Pattern | None) -> SourceList:
    scan = scan_folder(src, unlabelled=unlabelled, pattern=pattern)
    names = [entry.name for entry in scan.entries]
    tars = find_tars(names)
    if tars and not any(read_ending(name) in ENDINGS for name in names):
        _refuse_pattern(src, "a folder of tars, in which each picture has its label beside it", pattern)
        return list_tars(src, tars, unlabelled=unlabelled)
    lists = [] if unlabelled else find_lists(names)
    try:
        listed = list_folder(src, scan, unlabelled=unlabelled, pattern=pattern)
    except UsageError as err:
        if lists and SIDECAR not in names:
            raise UsageError(f"{err}; to pack by the list in it, give {src / lists[0]}") from err
        raise
    notes = [f"{src / lists[0]} is not read; to pack by that list and not by folders, give it as SRC"] if lists else []
    return replace(listed, notes=[*listed.notes, *notes])


def _refuse_pattern(src: Path, what: str, pattern: Pattern | None) -> None:
    if pattern is not None:
        raise UsageError(f"--layout says what folders of pictures mean, and {src} is {what}; leave it out")
