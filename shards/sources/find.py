"""The only way to pictures: a path of any kind becomes a SourceList."""

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
    """Return the pictures in `src`, of whatever kind it is.

    Args:
        src: Of one of PACKED_KINDS.
        unlabelled: Take all pictures, without labels, as split `all`.
        layout: The meaning of folders in a folder or archive, see `parse_pattern`; None: guessed from their names.
        class_names: File of display names, see `read_class_names`.
        group_regex: See `group_by_regex`.
        form: The user's description of a list, see `ListForm`.
        alike, drop_empty: See `settle_classes`.
        incomplete: The classes are those of a bundle: any may be missing, in train as well. Sources with splits but no
            train are always read this way.
        names: Encoding of names for which an archive declares none; None: guess.

    Raises:
        UsageError: Nothing that can be packed, or an option that does not fit it.
        ShardError: A damaged archive or shard.
        OSError: A folder that cannot be listed.
    """
    pattern = parse_pattern(layout) if layout is not None else None
    if pattern and unlabelled:
        raise UsageError("--layout sets which folders are classes, but --unlabelled uses no classes; give one of them")
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
        note = f"{src} gives {splits} without train: the dataset can be used to evaluate a model, but not to train one"
        listed = replace(listed, notes=[*listed.notes, note])
    if class_names is not None:
        if unlabelled:
            raise UsageError("--class-names names classes, but --unlabelled uses no classes; give one of them")
        listed = replace(listed, display_names=name_classes(class_names, listed.classes))
    return group_by_regex(listed, group_regex) if group_regex else listed


def _choose_loader(
    src: Path, pattern: Pattern | None, form: ListForm | None, names: str | None
) -> Callable[[Path, How], SourceList]:
    """Return the function that lists a path's pictures, after checking options against its kind."""
    kind = find_kind(str(src))
    if not src.exists() and (kind is None or not kind.in_archive):
        raise UsageError(f"no such folder: {src}; give a folder that holds one subfolder of pictures per class")
    if kind is None or kind.load is None:
        endings = ", ".join(ending for kind in reversed(PACKED_KINDS) for ending in kind.endings)
        raise UsageError(f"{src} is neither a folder nor a file that can be packed ({endings})")
    if pattern is not None and kind.no_layout:
        raise UsageError(f"--layout sets what folders of pictures mean, but {src} is {kind.no_layout}; leave it out")
    if form is not None and not kind.is_list and (option := form.name_given()):
        raise UsageError(f"{option} sets how a list is read, but {src} is not a list; give a .csv, or drop the option")
    if names is not None and not kind.in_archive:
        raise UsageError(
            f"--names sets how the names in an archive are encoded, but {src} is not an archive; leave it out"
        )
    return kind.load
