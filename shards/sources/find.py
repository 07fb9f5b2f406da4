"""The one door to pictures: whatever a path is, it becomes a SourceList."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from shards.errors import UsageError
from shards.sources.alike import Alike, settle_classes
from shards.sources.archive_names import check_encoding
from shards.sources.class_names import name_classes
from shards.sources.groups import group_by_regex
from shards.sources.kinds import PACKED_KINDS, How, find_kind
from shards.sources.list_form import ListForm
from shards.sources.model import SourceList
from shards.sources.pattern import Pattern, parse_pattern


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
    incomplete: bool = False,
    names: str | None = None,
) -> SourceList:
    """Return the pictures that `src` holds, whatever it is.

    Args:
        src: Of one of PACKED_KINDS.
        unlabelled: Take all pictures, without labels, as split `all`.
        layout: What the folders of a folder or an archive mean, see `parse_pattern`; None: their names tell.
        class_names: File of display names, see `read_class_names`.
        group_regex: See `group_by_regex`.
        form: What the user says about a list, see `ListForm`.
        alike, drop_empty: See `settle_classes`.
        incomplete: The classes are those of a bundle: any of them may be missing, in train as well. A source that gives
            splits and none of them is train is taken for such without a word.
        names: Encoding of the names in an archive that does not say it; None: guess.

    Raises:
        UsageError: Nothing there that can be packed, or an option that does not fit it.
        ShardError: A damaged archive or shard.
        OSError: A folder that cannot be listed.
    """
    pattern = parse_pattern(layout) if layout is not None else None
    if pattern and unlabelled:
        raise UsageError("--layout says which folders are classes, and --unlabelled takes none; give one of them")
    load = _choose_loader(src, pattern, form, names)
    how = How(
        unlabelled,
        pattern,
        form,
        settled=("group",) if group_regex else (),
        incomplete=incomplete,
        names=check_encoding(names) if names is not None else None,
    )
    listed = load(src, how)
    external = not unlabelled and not listed.may_train
    listed = settle_classes(src, listed, alike, drop_empty, one_is_enough=incomplete or external)
    if external and not incomplete:
        splits = " and ".join(sorted({source.split or "" for source in listed.sources}))
        note = f"{src} gives {splits} without train: a model can be evaluated on the dataset, and none trained on it"
        listed = replace(listed, notes=[*listed.notes, note])
    if class_names is not None:
        if unlabelled:
            raise UsageError("--class-names names classes, and --unlabelled leaves none; give one of them")
        listed = replace(listed, display_names=name_classes(class_names, listed.classes))
    return group_by_regex(listed, group_regex) if group_regex else listed


def _choose_loader(
    src: Path, pattern: Pattern | None, form: ListForm | None, names: str | None
) -> Callable[[Path, How], SourceList]:
    """Return what lists the pictures of a path, once the options fit what it is."""
    kind = find_kind(str(src))
    if not src.exists() and (kind is None or not kind.in_archive):
        raise UsageError(f"no such folder: {src}; give a folder that holds one subfolder of pictures per class")
    if kind is None or kind.load is None:
        endings = ", ".join(ending for kind in reversed(PACKED_KINDS) for ending in kind.endings)
        raise UsageError(f"{src} is neither a folder nor a file that can be packed ({endings})")
    if pattern is not None and kind.no_layout:
        raise UsageError(f"--layout says what folders of pictures mean, and {src} is {kind.no_layout}; leave it out")
    if form is not None and not kind.is_list and (option := form.name_given()):
        raise UsageError(f"{option} says how a list is read, and {src} is none; give a .csv, or drop the option")
    if names is not None and not kind.in_archive:
        raise UsageError(f"--names says how the names in an archive are encoded, and {src} is none; leave it out")
    return kind.load
