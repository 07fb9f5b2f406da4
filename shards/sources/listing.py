"""A CSV or Parquet list of pictures: columns path and label, and optionally split, group and weight."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from shards.cli.sentences import count_things
from shards.errors import UsageError
from shards.sources.headings import trim
from shards.sources.label_cells import (
    SEPARATOR,
    find_empty,
    find_unseen,
    read_label_cells,
    read_one_hot,
    refuse_vectors,
)
from shards.sources.layout import Entry, sort_sources
from shards.sources.list_columns import Choice, choose_columns
from shards.sources.list_files import Files, FolderFiles, add_ending, find_file, suggest_place
from shards.sources.list_form import LISTS, ONE, ListForm
from shards.sources.list_refusal import join_names
from shards.sources.model import Source, SourceList
from shards.sources.sidecar import read_weight
from shards.sources.split_words import describe_splits, read_splits
from shards.sources.table import Table, read_table

_LABELLED = ("label", "split")
"""Roles that do not apply to unlabelled pictures."""


def read_list(
    path: Path,
    *,
    unlabelled: bool = False,
    form: ListForm | None = None,
    settled: Collection[str] = (),
    incomplete: bool = False,
) -> SourceList:
    """Return the pictures of a list; paths are absolute or relative to its folder, or to the form's base folder.

    Several labels of a picture are separated by `;`, or as the form sets. Labels that are all integers are sorted
    numerically.

    Args:
        path: The list.
        unlabelled: Use no labels and no splits.
        form: The user's description of columns, base folder, file ending and labels.
        settled: See `choose_columns`.
        incomplete: Classes may be missing, see `find_sources`.

    Raises:
        UsageError: An invalid list, row or value, or a file that is missing or listed twice.
        ShardError: A damaged Parquet file.
    """
    form = form or ListForm()
    table = read_table(path, list_known(form))
    files = FolderFiles(form.base or path.parent)
    return list_rows(path, table, files, unlabelled=unlabelled, form=form, settled=settled, incomplete=incomplete)


def list_known(form: ListForm) -> set[str]:
    """Return the column names to look for."""
    return {*form.roles, *form.columns.values(), *form.one_hot}


def list_rows(
    path: Path,
    table: Table,
    place: Files,
    *,
    unlabelled: bool = False,
    form: ListForm,
    settled: Collection[str] = (),
    incomplete: bool = False,
) -> SourceList:
    """Return the pictures of a list that has been read, wherever they are; like `read_list`.

    path: The list, for messages.
    """
    if unlabelled:
        form = _drop_labels(form)
    chosen = choose_columns(path, table, form, ("path",) if unlabelled else ("path", "label"), settled)
    files, turned = _find_files(path, place, table, chosen, form)
    labels = [()] * len(files) if unlabelled else _read_labels(path, table, chosen, form)
    cells, words = _read_splits(path, table, chosen, form)
    splits = ["all"] * len(files) if unlabelled else [words.get(cell) for cell in cells]
    groups = _read_column(table, chosen, "group", "whole")
    weights = _read_weights(path, table, chosen, files)
    sources = [
        Source(file.name, label, split, file.size, file.stamp, file.offset, weight=weight, group=group)
        for file, label, split, group, weight in zip(files, labels, splits, groups, weights, strict=True)
    ]
    # Like a row with two labels, a row without a label shows that a picture may have any number of them.
    empty = 0 if unlabelled else _count_empty(path, table, chosen, form, labels)
    classes, several = sort_sources(path, sources, unlabelled, incomplete)
    several = several or empty > 0
    sources = place.group(sources)
    notes = [*chosen.notes, *turned, *describe_splits(words, f"{path}: values of the column split")]
    notes += _describe_unseen(path, find_unseen(chosen.one_hot, labels))
    notes += _describe_empty(path, empty)
    gives = frozenset(chosen.places)
    return SourceList(sources, classes, {}, place.store, list(classes), several, notes, place.whole, gives)


def _drop_labels(form: ListForm) -> ListForm:
    """Return the form without options that do not apply to unlabelled pictures."""
    named = next((f"{form.option} {role}=" for role in _LABELLED if form.columns.get(role)), "")
    options = {"--one-hot": form.one_hot, "--labels-as": form.labels, "--empty-labels": form.empty}
    named = named or next((option for option, value in options.items() if value), "")
    if named:
        raise UsageError(f"{named} sets where labels or splits are, but --unlabelled uses none; give one of them")
    return replace(form, roles=tuple(role for role in form.roles if role not in _LABELLED))


def _read_column(table: Table, chosen: Choice, role: str, *kinds: str) -> list[str]:
    """Return the values of a role's column, empty if it has none."""
    if role not in chosen.places:
        return [""] * len(table.numbers)
    return [trim(value) for value in table.read(chosen.places[role], kinds)]


def _find_files(
    path: Path, place: Files, table: Table, chosen: Choice, form: ListForm
) -> tuple[list[Entry], list[str]]:
    """Return the file of each row, and notes."""
    found: list[Entry] = []
    missing: list[tuple[int, str]] = []
    turned: list[str] = []
    seen: dict[str, int] = {}
    cells = table.read(chosen.places["path"], ("whole",) if form.ending else ())
    for number, cell in zip(table.numbers, cells, strict=True):
        file = find_file(place, cell, form.ending)
        if file is None:
            missing.append((number, trim(cell)))
            continue
        where = place.locate(file.name)
        if where in seen:
            raise UsageError(
                f"{path} row {number} names '{file.name}', as row {seen[where]} does; keep one of them, with "
                f"several labels separated by '{SEPARATOR}'"
            )
        seen[where] = number
        found.append(file)
        if "\\" in cell and "\\" not in file.name:
            turned.append(trim(cell))
    if missing:
        number, name = missing[0]
        more = f" (nor those of {len(missing) - 1:,} more rows)" if len(missing) > 1 else ""
        raise UsageError(
            f"{path} row {number}: there is no file '{add_ending(name, form.ending)}'{more}; paths are absolute or "
            f"relative to {place.root}{suggest_place(place, name, form)}"
        )
    return found, _describe_turned(path, turned)


def _describe_turned(path: Path, cells: Sequence[str]) -> list[str]:
    if not cells:
        return []
    return [f"{path}: \\ in {count_things(len(cells), 'path')} is read as /, as in '{cells[0]}'"]


def _read_labels(path: Path, table: Table, chosen: Choice, form: ListForm) -> list[tuple[str, ...]]:
    if chosen.one_hot:
        columns = {name: table.read(place, ("whole", "number", "truth")) for name, place in chosen.one_hot.items()}
        return read_one_hot(path, table.numbers, columns)
    place = chosen.places["label"]
    if form.labels != ONE:
        refuse_vectors(path, table.numbers, table.scan(place))
    kinds = {LISTS: ("whole", "list"), ONE: ("whole", "list", "vector")}.get(form.labels or "", ("whole",))
    if form.labels is None and table.is_list(place):
        return read_label_cells(path, table.numbers, table.read(place, ("list",)), LISTS)
    return read_label_cells(path, table.numbers, table.read(place, kinds), form.labels)


def _count_empty(path: Path, table: Table, chosen: Choice, form: ListForm, labels: Sequence[tuple[str, ...]]) -> int:
    """Return how many rows have no label; raises UsageError if labels may have been forgotten."""
    lists = not chosen.one_hot and (form.labels == LISTS or table.is_list(chosen.places["label"]))
    return find_empty(path, table.numbers, labels, allowed=form.empty or lists, one_hot=bool(chosen.one_hot))


def _describe_empty(path: Path, count: int) -> list[str]:
    rows = "1 row has no label, and its picture is" if count == 1 else f"{count:,} rows have no label, and are pictures"
    return [f"{path}: {rows} of none of the classes"] if count else []


def _describe_unseen(path: Path, classes: Sequence[str]) -> list[str]:
    so = "it is not a class" if len(classes) == 1 else "they are not classes"
    return [f"{path}: no picture has a 1 in {join_names(classes)}, so {so}"] if classes else []


def _read_splits(path: Path, table: Table, chosen: Choice, form: ListForm) -> tuple[list[str], dict[str, str]]:
    """Return the split column's cells, and the split of each value; empty if the column is empty or missing."""
    cells = _read_column(table, chosen, "split")
    if not any(cells):
        return cells, {}
    splits = read_splits(cells, affixes=True)
    for number, cell in zip(table.numbers, cells, strict=True):
        if not cell:
            raise UsageError(f"{path} row {number} has no split but other rows do; fill the column, or leave it out")
        if cell not in splits:
            raise UsageError(
                f"{path} row {number}: '{cell}' is not a split; write train, val (validation) or test, or "
                f"give {form.spell({'split': ''})} to use no splits"
            )
    return cells, splits


def _read_weights(path: Path, table: Table, chosen: Choice, files: Sequence[Entry]) -> list[float]:
    cells = _read_column(table, chosen, "weight", "whole", "number")
    return [read_weight(path, file.name, cell) if cell else 1.0 for file, cell in zip(files, cells, strict=True)]
