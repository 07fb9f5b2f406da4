"""A user's description of a list that does not follow our names: columns, base folder, file ending, form of labels."""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shards.cli.sentences import find_near, suggest
from shards.errors import UsageError
from shards.sources.headings import ROLES, clean, fold

ONE, LISTS = "one", "list"
"""Forms of labels besides a separator: each cell is one label, whatever is in it; each cell is `['cat', 'dog']`."""


@dataclass(frozen=True)
class ListForm:
    """How to read a list.

    columns: role -> name of its column, `` if it has none; other roles are columns of that name.
    base: folder of relative paths; None: the list's. ending: suffix that paths lack, for example `.jpg`.
    one_hot: columns of 0 and 1, one per class, instead of a column of labels.
    labels: ONE, LISTS, or the separator of several labels; None is `;` if no cell could mean something else.
    empty: rows without a label are pictures of none of the classes, even if no row has several labels.
    roles: roles to look for. option: the option with which the user names columns.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    base: Path | None = None
    ending: str = ""
    one_hot: Sequence[str] = ()
    labels: str | None = None
    empty: bool = False
    roles: tuple[str, ...] = ROLES
    option: str = "--columns"

    def name_given(self) -> str | None:
        """Return a given option that applies only to lists."""
        options = {
            self.option: self.columns,
            "--base": self.base,
            "--ending": self.ending,
            "--one-hot": self.one_hot,
            "--labels-as": self.labels,
            "--empty-labels": self.empty,
        }
        return next((option for option, value in options.items() if value), None)

    def spell(self, columns: Mapping[str, str]) -> str:
        """Return the option that names these columns in addition to those already named.

        >>> ListForm(columns={"path": "file"}).spell({"split": "data set", "group": ""})
        "--columns 'path=file,split=data set,group='"
        """
        both = {**self.columns, **columns}
        return f"{self.option} {shlex.quote(join_words(f'{role}={name}' for role, name in both.items()))}"


def parse_form(
    *,
    option: str = "--columns",
    columns: str | None = None,
    base: Path | None = None,
    ending: str | None = None,
    one_hot: str | None = None,
    labels_as: str | None = None,
    empty_labels: bool = False,
    roles: tuple[str, ...] = ROLES,
) -> ListForm:
    """Return the form for options, spelt as on a command line; None: not given.

    Raises:
        UsageError: A value that an option does not accept.
    """
    return ListForm(
        columns=parse_columns(option, columns, roles) if columns is not None else {},
        base=base,
        ending=parse_ending(ending) if ending is not None else "",
        one_hot=parse_words("--one-hot", one_hot) if one_hot is not None else (),
        labels=parse_labels(labels_as) if labels_as is not None else None,
        empty=empty_labels,
        roles=roles,
        option=option,
    )


def parse_columns(option: str, text: str, roles: Sequence[str] = ROLES) -> dict[str, str]:
    """Return column names by role.

    >>> parse_columns("--columns", 'path=file, "label=a,b",split=')
    {'path': 'file', 'label': 'a,b', 'split': ''}

    Raises:
        UsageError: Not of the form ROLE=NAME, or an unknown or repeated role.
    """
    columns: dict[str, str] = {}
    for word in _split_words(option, text):
        role, equals, name = word.partition("=")
        role = fold(role)
        if not equals or role not in roles:
            turned = join_words([f"{fold(name)}={clean(word.partition('=')[0])}"])
            near = find_near(role, roles)
            meant = turned if fold(name) in roles else f"{near[0]}={name}" if near and equals else ""
            hint = f"did you mean {option} {shlex.quote(meant)}?" if meant else ""
            hint = hint or f"write {roles[0]}=NAME with the name of the column after the equals sign"
            raise UsageError(f"{option}: '{word}' must be ROLE=NAME, where ROLE is one of {', '.join(roles)}; {hint}")
        if role in columns:
            raise UsageError(f"{option} names {role} twice; keep one of them")
        columns[role] = name
    return columns


def parse_words(option: str, text: str) -> list[str]:
    """Return words separated by commas, quoted if they contain one; raises UsageError if there are none or one is
    repeated.

    >>> parse_words("--one-hot", 'MEL, NV,"a, b"')
    ['MEL', 'NV', 'a, b']
    """
    words = _split_words(option, text)
    if not all(map(clean, words)) or len(set(words)) < len(words):
        raise UsageError(f"{option} takes names separated by commas, each once, got '{text}'")
    return words


def parse_ending(text: str) -> str:
    """Return a file ending with its dot.

    >>> parse_ending("jpg"), parse_ending(".nii.png"), parse_ending("_left.jpg")
    ('.jpg', '.nii.png', '_left.jpg')

    Raises:
        UsageError: Empty, or more than an ending.
    """
    if not text or "/" in text:
        raise UsageError(f"--ending is the ending of file names, for example .jpg, got '{text}'")
    return f".{text}" if text.isalnum() else text


def parse_labels(text: str) -> str:
    """Return the form of labels.

    Raises:
        UsageError: Neither a form nor a possible separator.
    """
    if text in (ONE, LISTS) or (text and not re.search(r"\w", text)):
        return text
    hint = suggest(text, (ONE, LISTS), otherwise="; give one of these")
    raise UsageError(
        f"--labels-as is {ONE}, {LISTS} or the separator of several labels, for example '|', got '{text}'{hint}"
    )


def join_words(words: Iterable[str], delimiter: str = ",") -> str:
    """Return words as `parse_words` reads them, or as the first line of a list with another delimiter."""
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="").writerow(words)
    return buffer.getvalue()


def _split_words(option: str, text: str) -> list[str]:
    try:
        return next(csv.reader([text], strict=True, skipinitialspace=True), [])
    except csv.Error as err:
        raise UsageError(f"{option} cannot be read ({err}): '{text}'") from err
