"""Labels as lists write them: one a cell, several between separators, `['cat', 'dog']`, or columns of 0 and 1."""

from __future__ import annotations

import ast
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from shards.errors import UsageError
from shards.sources.headings import trim
from shards.sources.list_form import LISTS, ONE

SEPARATOR = ";"
_Labels = tuple[str, ...]
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_TRUTHS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
_FLAGS = frozenset({"true", "false", "-1", "-1.", "-1.0", "0.", "1.", *"01", "0.0", "1.0"})
"""What stands in a vector of 0 and 1: truth values as well, and -1 for what nobody is sure of."""
_PERHAPS = (",", "/", "+", "&", " ")
"""May separate labels, and stands in the names of many classes as well."""


def read_label_cells(path: Path, numbers: Sequence[int], cells: Sequence[str], form: str | None) -> list[_Labels]:
    """Return the labels of each row, none for an empty cell; form: see `ListForm.labels`.

    Raises:
        UsageError: A row that is not of the form or, without one, of two forms.
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
        labels.append(known[cell])
    return labels


def find_empty(path: Path, numbers: Sequence[int], labels: Sequence[_Labels], *, allowed: bool, one_hot: bool) -> int:
    """Return how many rows have no label: pictures of none of the classes, where pictures have several or none.

    Args:
        path: The list.
        numbers: Of its rows.
        labels: Of each.
        allowed: Take them, though no row has several labels.
        one_hot: Whether columns of 0 and 1 say the labels.

    Raises:
        UsageError: There are some, and each other row has one label, so that they may have been forgotten.
    """
    empty = [number for number, each in zip(numbers, labels, strict=True) if not each]
    if len(empty) == len(labels):
        raise UsageError(f"{path} has no label in any row; write them, or give --unlabelled")
    if not empty or allowed or any(len(each) > 1 for each in labels):
        return len(empty)
    raise UsageError(
        f"{path} row {empty[0]} has {'a 1 in none of the columns of --one-hot' if one_hot else 'no label'}, and no row "
        "has several; write one, drop the row, give --empty-labels where it shows none of the classes, or --unlabelled "
        "to take labels from none"
    )


def refuse_vectors(path: Path, numbers: Sequence[int], cells: Iterable[str]) -> None:
    """Raise a UsageError where all cells are vectors of 0 and 1 of one length, two or more: no lists of labels.

    Args:
        path: The list.
        numbers: Of its rows.
        cells: The column as text, of which no more is read than is needed; empty cells do not count.
    """
    first: tuple[int, str] | None = None
    lengths: set[int] = set()
    for number, cell in zip(numbers, cells, strict=False):
        if not trim(cell):
            continue
        lengths.add(_measure_vector(cell))
        first = first or (number, trim(cell))
        if len(lengths) > 1 or lengths & {0, 1}:
            return
    if first:
        raise UsageError(
            f"{path} row {first[0]}: '{first[1]}' is a vector of 0 and 1, as are the labels of all rows; write a "
            "column of 0 and 1 for each class and name these with --one-hot NAME,NAME, or give "
            f"--labels-as {ONE} to take each vector as a class of this name"
        )


def _measure_vector(cell: str) -> int:
    """Return how many values a vector of 0 and 1 has, 0 where a cell is none.

    >>> [_measure_vector(cell) for cell in ("[1 0]", "1;0;0", "[true]", "['0', '1']", "[0, 2]", "cat")]
    [2, 3, 1, 0, 0, 0]
    """
    inside = _strip_brackets(cell)
    items = re.split(r"\s*[,;|/]\s*|\s+", trim(cell) if inside is None else inside)
    return len(items) if all(item.casefold() in _FLAGS for item in items) else 0


def find_unseen(classes: Iterable[str], labels: Iterable[_Labels]) -> list[str]:
    """Return which classes no picture has."""
    left = dict.fromkeys(classes)
    for each in labels:
        for label in each:
            left.pop(label, None)
        if not left:
            break
    return list(left)


def read_one_hot(path: Path, numbers: Sequence[int], columns: Mapping[str, Sequence[str]]) -> list[_Labels]:
    """Return as labels of each row the classes whose columns hold a 1, none for a row of zeros.

    Raises:
        UsageError: A value that is neither 0 nor 1.
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
