"""Labels in the cells of a list: one per cell, several with separators, `['cat', 'dog']`, or columns of 0 and 1."""

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
"""Values in a vector of 0 and 1, including truth values, and -1 for uncertain."""
_PERHAPS = (",", "/", "+", "&", " ")
"""May separate labels, but also occur in the names of many classes."""


def read_label_cells(path: Path, numbers: Sequence[int], cells: Sequence[str], form: str | None) -> list[_Labels]:
    """Return the labels of each row, none for an empty cell; form: see `ListForm.labels`.

    Raises:
        UsageError: A row that does not have the form or, without a form, may have two.
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
    """Return how many rows have no label: pictures of none of the classes, if pictures may have several labels or none.

    Args:
        path: The list.
        numbers: Row numbers.
        labels: Labels of each row.
        allowed: Accept them even if no row has several labels.
        one_hot: Whether labels come from columns of 0 and 1.

    Raises:
        UsageError: Some rows have no label and all others have one, so that labels may have been forgotten.
    """
    empty = [number for number, each in zip(numbers, labels, strict=True) if not each]
    if len(empty) == len(labels):
        raise UsageError(f"{path} has no label in any row; add labels, or give --unlabelled")
    if not empty or allowed or any(len(each) > 1 for each in labels):
        return len(empty)
    raise UsageError(
        f"{path} row {empty[0]} has {'a 1 in none of the columns of --one-hot' if one_hot else 'no label'}, and no "
        "row has several; add one, drop the row, give --empty-labels if it shows none of the classes, or "
        "--unlabelled to use no labels"
    )


def refuse_vectors(path: Path, numbers: Sequence[int], cells: Iterable[str]) -> None:
    """Raise a UsageError if all cells are vectors of 0 and 1 of one length (two or more), which are not lists of
    labels.

    Args:
        path: The list.
        numbers: Row numbers.
        cells: The column as text, read only as far as needed; empty cells are ignored.
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
            f"column of 0 and 1 for each class and name these with --one-hot NAME,NAME, or give --labels-as {ONE} "
            "to use each vector as a class name"
        )


def _measure_vector(cell: str) -> int:
    """Return the length of a vector of 0 and 1, 0 if the cell is not one.

    >>> [_measure_vector(cell) for cell in ("[1 0]", "1;0;0", "[true]", "['0', '1']", "[0, 2]", "cat")]
    [2, 3, 1, 0, 0, 0]
    """
    inside = _strip_brackets(cell)
    items = re.split(r"\s*[,;|/]\s*|\s+", trim(cell) if inside is None else inside)
    return len(items) if all(item.casefold() in _FLAGS for item in items) else 0


def find_unseen(classes: Iterable[str], labels: Iterable[_Labels]) -> list[str]:
    """Return the classes without pictures."""
    left = dict.fromkeys(classes)
    for each in labels:
        for label in each:
            left.pop(label, None)
        if not left:
            break
    return list(left)


def read_one_hot(path: Path, numbers: Sequence[int], columns: Mapping[str, Sequence[str]]) -> list[_Labels]:
    """Return as labels of each row the classes whose columns have a 1, none for a row of zeros.

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
    """Return the items of a list in Python, JSON or NumPy notation.

    >>> _read_list("['it', \\"dog's\\"]"), _read_list('["a, b"]'), _read_list("['a' 'b']"), _read_list("[a b, 3]")
    (('it', "dog's"), ('a, b',), ('a', 'b'), ('a b', '3'))

    Raises:
        ValueError: Not a list, or an item occurs twice, like 0 in a vector of zeros and ones.
    """
    inside = _strip_brackets(cell) if trim(cell) else ""
    if inside is None:
        raise ValueError("is not a list like ['cat', 'dog'], which --labels-as list requires")
    if "'" in inside or '"' in inside:
        if re.sub(r"[\s,]", "", _QUOTED.sub("", inside)):
            raise ValueError("cannot be read as a list; put each of its labels into quotes")
        items = [trim(str(ast.literal_eval(quoted))) for quoted in _QUOTED.findall(inside)]
    elif re.fullmatch(r"[\d\s.]+", inside):
        items = inside.split()
    else:
        items = [trim(part) for part in inside.split(",")]
    if len(set(items)) < len(items):
        raise ValueError("has a label twice; if it is a vector of 0 and 1, give columns of these to --one-hot")
    return tuple(item for item in items if item)


def _strip_brackets(cell: str) -> str | None:
    text = trim(cell)
    return trim(text[1:-1]) if text[:1] + text[-1:] in ("[]", "()", "{}") else None


def _refuse_ambiguous(path: Path, numbers: Sequence[int], cells: Sequence[str]) -> None:
    """Raise a UsageError if a cell is read as one class but may well mean several."""
    known = {cell: _split_at(SEPARATOR)(cell) for cell in cells}
    whole = {label for labels in known.values() for label in labels}
    listed = Counter(part for label in whole if "," in label for part in _split_at(",")(label))
    # Parts between commas need only occur in two different cells: tags seldom stand alone.
    tags = {part for part, count in listed.items() if count > 1}
    forms = {cell: _find_form(cell, labels, whole, tags) for cell, labels in known.items()}
    for number, cell in zip(numbers, cells, strict=True):
        if form := forms[cell]:
            raise UsageError(
                f"{path} row {number}: '{trim(cell)}' may be one class or several labels; give --labels-as "
                f"{shlex.quote(form)} to read several, or --labels-as {ONE} for a class of this name"
            )


def _find_form(cell: str, labels: _Labels, whole: set[str], tags: set[str]) -> str | None:
    """Return the form by which a cell could be several labels: a list, or parts that are classes in other rows."""
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
