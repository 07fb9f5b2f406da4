"""Labels as lists write them: one a cell, several between separators, `['cat', 'dog']`, or columns of 0 and 1."""

from __future__ import annotations

import ast
import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shards.errors import UsageError
from shards.sources.headings import trim
from shards.sources.list_form import LISTS, ONE

SEPARATOR = ";"
_Labels = tuple[str, ...]
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_TRUTHS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
_PERHAPS = (",", "/", "+", "&", " ")
"""May separate labels, and stands in the names of many classes as well."""


def read_label_cells(path: Path, numbers: Sequence[int], cells: Sequence[str], form: str | None) -> list[_Labels]:
    """Return the labels of each row; form: see `ListForm.labels`.

    Raises:
        UsageError: A row without a label, or one that is not of the form or, without one, of two forms.
    """
    if form is None:
        _refuse_ambiguous(path, numbers, cells)
    split = {ONE: _take_whole, LISTS: _read_list}.get(form or "", _split_at(form or SEPARATOR))
    known: dict[str, _Labels] = {}
    labels: list[_Labels] = []
    for number, cell in zip(numbers, cells, strict=True):
        if cell not in known:
            try:
                known[cell] = split(cell)
            except ValueError as err:
                raise UsageError(f"{path} row {number}: '{trim(cell)}' {err}") from err
        if not known[cell]:
            raise UsageError(
                f"{path} row {number} has no label; write one, drop the row, or give --unlabelled to take none from all"
            )
        labels.append(known[cell])
    return labels


def read_one_hot(path: Path, numbers: Sequence[int], columns: Mapping[str, Sequence[str]]) -> list[_Labels]:
    """Return as labels of each row the classes whose columns hold a 1.

    Raises:
        UsageError: A value that is neither 0 nor 1, or a row of zeros.
    """
    labels: list[_Labels] = []
    for number, values in zip(numbers, zip(*columns.values(), strict=True), strict=True):
        flags = [_TRUTHS.get(trim(value).casefold()) for value in values]
        if None in flags:
            place = flags.index(None)
            raise UsageError(
                f"{path} row {number} has '{trim(values[place])}' in the column {list(columns)[place]} of --one-hot; "
                "write 1 where the picture is of the class and 0 where it is not"
            )
        labels.append(tuple(name for name, flag in zip(columns, flags, strict=True) if flag))
        if not labels[-1]:
            raise UsageError(
                f"{path} row {number} has a 1 in none of the columns of --one-hot; write one, drop the row, or add a "
                "column for pictures without a finding"
            )
    return labels


def _take_whole(cell: str) -> _Labels:
    return (trim(cell),) if trim(cell) else ()


def _split_at(separator: str) -> Callable[[str], _Labels]:
    def split(cell: str) -> _Labels:
        return tuple(dict.fromkeys(trim(part) for part in cell.split(separator) if trim(part)))

    return split


def _read_list(cell: str) -> _Labels:
    """Return the items of a list as Python, JSON or NumPy write it.

    >>> _read_list("['it', \\"dog's\\"]"), _read_list('["a, b"]'), _read_list("['a' 'b']"), _read_list("[a b, 3]")
    (('it', "dog's"), ('a, b',), ('a', 'b'), ('a b', '3'))

    Raises:
        ValueError: It is none, or an item stands in it twice, as 0 does in a vector of zeros and ones.
    """
    inside = _strip_brackets(cell) if trim(cell) else ""
    if inside is None:
        raise ValueError("is no list such as ['cat', 'dog'], which --labels-as list says that every label is")
    if "'" in inside or '"' in inside:
        if re.sub(r"[\s,]", "", _QUOTED.sub("", inside)):
            raise ValueError("cannot be read as a list; put each of its labels into quotes")
        items = [trim(str(ast.literal_eval(quoted))) for quoted in _QUOTED.findall(inside)]
    elif re.fullmatch(r"[\d\s.]+", inside):
        items = inside.split()
    else:
        items = [trim(part) for part in inside.split(",")]
    if len(set(items)) < len(items):
        raise ValueError("holds a label twice; if it is a vector of 0 and 1, give columns of these to --one-hot")
    return tuple(item for item in items if item)


def _strip_brackets(cell: str) -> str | None:
    text = trim(cell)
    return trim(text[1:-1]) if text[:1] + text[-1:] in ("[]", "()", "{}") else None


def _refuse_ambiguous(path: Path, numbers: Sequence[int], cells: Sequence[str]) -> None:
    """Raise a UsageError where a cell is one class as it stands, and may well be meant as several."""
    known = {cell: _split_at(SEPARATOR)(cell) for cell in cells}
    whole = {label for labels in known.values() for label in labels}
    listed = Counter(part for label in whole if "," in label for part in _split_at(",")(label))
    # Of what commas separate it is enough that each comes in two different cells: tags seldom stand alone.
    tags = {part for part, count in listed.items() if count > 1}
    forms = {cell: _find_form(cell, labels, whole, tags) for cell, labels in known.items()}
    for number, cell in zip(numbers, cells, strict=True):
        if form := forms[cell]:
            raise UsageError(
                f"{path} row {number}: '{trim(cell)}' may be one class or several labels; give --labels-as "
                f"{shlex.quote(form)} to read several, or --labels-as {ONE} for a class of this name"
            )


def _find_form(cell: str, labels: _Labels, whole: set[str], tags: set[str]) -> str | None:
    """Return as what a cell could be read as several: a list, or parts that are classes in other rows."""
    inside = _strip_brackets(cell)
    if inside is not None and (trim(cell)[0] == "[" or "'" in inside or '"' in inside):
        return LISTS
    if "|" in cell:
        return "|"
    for mark in _PERHAPS:
        several = [_split_at(mark)(label) for label in labels if mark in label]
        known = whole | tags if mark == "," else whole
        if any(len(parts) > 1 and known.issuperset(parts) for parts in several):
            return mark
    return None
