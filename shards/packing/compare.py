"""Comparison of a source with a dataset's pictures: nothing new, new weights and groups, or a conflict."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from shards.cli.sentences import count_things, join_some
from shards.dataset.manifest import Manifest
from shards.errors import ShardError, UsageError
from shards.files.fingerprint import hash_bytes
from shards.packing.options import PackOptions
from shards.packing.repack import Repack
from shards.packing.same_file import list_roots, match_moved, match_sources
from shards.packing.update import Base
from shards.sources.model import Source, SourceList, Store
from shards.sources.split_words import read_splits

NAMED = 5
"""Pictures that a message names."""
_Both = Sequence[tuple[Source, int]]
"""Pictures in the source, each with its row in the dataset."""


def compare_sources(base: Base, listed: SourceList, options: PackOptions, repack: Repack) -> tuple[SourceList, Base]:
    """Return the pictures that are not in the dataset, and the dataset's own with their present weights and groups.

    Raises:
        UsageError: A class that the dataset does not have, or another kind of labels.
        ShardError: A picture of the dataset with another split, label or content, or groups that its splits divide.
    """
    if base.manifest is None:
        return listed, base
    _refuse_other_task(base.manifest, listed)
    matched = match_sources(base.sources, listed.sources, list_roots(repack.recorded), listed.root)
    matched = match_moved(base.sources, base.hashes, listed.sources, matched, listed.store)
    both = [(source, row) for source, row in zip(listed.sources, matched, strict=True) if row >= 0]
    gone = len(base.sources) - len({row for _, row in both})
    remedy = repack.spell(complete=gone == 0)
    _refuse_new_class(base.manifest, listed, repack.spell_whole(complete=gone == 0))
    _refuse_moved(base, both, set(base.manifest.packing.split.merge), remedy)
    changes, notes = _collect_changes(base, listed, both, remedy)
    changed = base.with_changes(changes)
    if not options.allow_leaks:
        _refuse_torn(base, changed, remedy)
    _refuse_other_content(base, listed.store, both)
    if gone:
        notes.append(f"{gone:,} pictures of the dataset are no longer in the source; they stay in it")
    notes += [*_describe_names(base, both), *_describe_display_names(base.manifest, listed)]
    new = [source for source, row in zip(listed.sources, matched, strict=True) if row < 0]
    return replace(listed, sources=new, classes=base.manifest.classes, notes=[*listed.notes, *notes]), changed


def _refuse_other_task(manifest: Manifest, listed: SourceList) -> None:
    unlabelled = not listed.classes
    if unlabelled != (manifest.task == "unlabelled") or (listed.multi_label and manifest.task == "single-label"):
        given = "unlabelled" if unlabelled else "multi-label" if listed.multi_label else "labelled"
        raise UsageError(f"the new pictures are {given} but the dataset is {manifest.task}; pack into a new folder")


def _refuse_new_class(manifest: Manifest, listed: SourceList, remedy: str) -> None:
    unknown = sorted(set(listed.classes) - set(manifest.classes))
    if not unknown:
        return
    before = ""
    if len(read_splits(manifest.classes, affixes=True)) == len(manifest.classes):
        before = ", or give --layout class/... if folders of these names were taken for classes"
    raise UsageError(
        f"class '{unknown[0]}' is new, and an update keeps the classes as they are ({join_some(manifest.classes)}), "
        f"because labels are positions in that list; {remedy}{before}"
    )


def _refuse_moved(base: Base, both: _Both, merged: set[str], remedy: str) -> None:
    """Raise if pictures have another split or label now.

    merged: Splits that were pooled and resplit when the dataset was packed, so that the source's splits are not those
        packed. An update's own merge does not matter here: it resplits only new pictures.
    """
    changed: list[str] = []
    for source, row in both:
        packed = base.sources[row]
        facts = []
        if source.split not in (None, packed.split) and not {source.split, packed.split} <= merged:
            facts.append(f"split {packed.split}, now {source.split}")
        if set(source.labels) != set(packed.labels):
            facts.append(f"label {' and '.join(packed.labels)}, now {' and '.join(source.labels)}")
        if facts:
            changed.append(f"{source.name} ({'; '.join(facts)})")
    if changed:
        more = f", and {len(changed) - NAMED:,} more" if len(changed) > NAMED else ""
        raise ShardError(
            f"{_count(changed)} another split or label now: {', '.join(changed[:NAMED])}{more}; an update does not "
            f"move packed pictures, so nothing was changed. To use the new splits and labels, {remedy}"
        )


def _collect_changes(base: Base, listed: SourceList, both: _Both, remedy: str) -> tuple[dict[int, Source], list[str]]:
    """Return the dataset's pictures with a new weight or group, by row, and notes about them.

    Raises:
        ShardError: The dataset has groups, but the source gives none.
    """
    weighed = "weight" in listed.gives or any(source.weight != 1 for source in listed.sources)
    grouped = "group" in listed.gives or any(source.group for source in listed.sources)
    changes: dict[int, Source] = {}
    weights, groups, kept = [], [], 0
    for source, row in both:
        packed = base.sources[row]
        if np.float32(source.weight) != np.float32(packed.weight):  # as the index stores it
            if weighed:
                weights.append(f"{source.name}: {packed.weight:g}, now {source.weight:g}")
                changes[row] = replace(packed, weight=source.weight)
            else:
                kept += 1
        if source.group != packed.group:
            if not grouped:
                raise ShardError(
                    f"{source.name} was packed with group '{packed.group}' but the source gives no groups now, so "
                    "pictures of one group could get into different splits; give the groups as before, or, to do "
                    f"without them, {remedy}"
                )
            groups.append(f"{source.name}: '{packed.group}', now '{source.group}'")
            changes[row] = replace(changes.get(row, packed), group=source.group)
    notes = [
        f"{_count(changed)} another {what} now ({changed[0]}{', ...' if len(changed) > 1 else ''}); the indexes have "
        "the new one from now on, the JSON in the tars keeps the old one, and a running training reads the old indexes "
        "to its end, but cannot resume with the new ones"
        for what, changed in (("weight", weights), ("group", groups))
        if changed
    ]
    if kept:
        notes.append(
            f"the source gives no weights, so {kept:,} pictures of the dataset keep theirs; give a column of ones "
            "to remove them"
        )
    return changes, notes


def _count(changed: Sequence[str]) -> str:
    return count_things(len(changed), "picture of the dataset has", "pictures of the dataset have")


def _refuse_torn(before: Base, after: Base, remedy: str) -> None:
    """Raise if the new group of a picture lies in several splits now, and did not before."""
    touched = {after.sources[row].group for row in after.changed} - {""}
    if not touched:
        return
    old, new = _find_splits(before, touched), _find_splits(after, touched)
    torn = sorted(group for group in touched if len(new[group]) > 1 >= len(old[group]))
    if torn:
        examples = ", ".join(f"{name} in {split}" for split, name in sorted(new[torn[0]].items()))
        more = f" (and {len(torn) - 1:,} more groups)" if len(torn) > 1 else ""
        raise ShardError(
            f"group '{torn[0]}' lies in several splits with the present groups ({examples}){more}, and an update "
            "does not move packed pictures, so results on val and test would be too good; correct the groups, give "
            f"--allow-leaks to accept this, or {remedy}"
        )


def _find_splits(base: Base, groups: set[str]) -> dict[str, dict[str, str]]:
    """Return for each group its splits, each with the name of a picture."""
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for source in base.sources:
        if source.group in groups and source.split:
            found[source.group].setdefault(source.split, source.name)
    return found


def _refuse_other_content(base: Base, store: Store, both: _Both) -> None:
    if base.examined is None:
        return
    rows = {source.name: row for source, row in both}
    for source, data in store.read_in_order(source for source, _ in both):
        if hash_bytes(data) != base.hashes[rows[source.name]]:
            raise ShardError(
                f"{source.name} is not the picture that was packed under this name, and an update only adds pictures; "
                "give the new picture another name, or pack into a new folder"
            )


def _describe_names(base: Base, both: _Both) -> list[str]:
    other = [(source.name, base.sources[row].name) for source, row in both if source.name != base.sources[row].name]
    if not other:
        return []
    new, old = other[0]
    pictures = count_things(len(other), "picture")
    return [f"the dataset has {pictures} of the source under another name ('{new}' is '{old}' in it)"]


def _describe_display_names(manifest: Manifest, listed: SourceList) -> list[str]:
    names = dict(zip(manifest.classes, manifest.display_names, strict=True))
    shown = zip(listed.classes, listed.display_names or listed.classes, strict=True)
    if any(name not in (label, names[label]) for label, name in shown):
        return ["the classes keep the display names that they were packed with"]
    return []
