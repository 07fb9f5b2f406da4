"""Tables of extensible choices: named rows, each with a builder given as text and imported when it is used.

A table stands beside the options, which are read where the builders' libraries are not needed. Only in a table may a
builder's text name a later room (`tests/test_architecture.py`); `tests/test_tables.py` checks rows against builders.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeVar


@dataclass(frozen=True)
class Row:
    """One choice, such as an optimizer; subclasses add columns for what their kind needs."""

    name: str
    """The name that users type."""
    summary: str
    """A line for help that continues the name."""
    builder: str
    """package.module:function that makes it; see `load_builder`."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Option that the builder takes as a keyword -> its default."""

    @property
    def uses(self) -> Mapping[str, Any]:
        """Return the options that this choice uses, with defaults: the builder's, and any that a subclass adds."""
        return self.defaults

    @property
    def help(self) -> str:
        """Return its description in help, without options."""
        return self.summary


R = TypeVar("R", bound=Row)


class Table(Mapping[str, R]):
    """Rows by name, in order.

    Args:
        plural: The plural noun for messages, for example "optimizers".
        rows: Rows with distinct names.
    """

    def __init__(self, plural: str, *rows: R) -> None:
        self.plural = plural
        self._rows = {row.name: row for row in rows}
        assert len(self._rows) == len(rows), f"two of the {plural} have one name"

    def __getitem__(self, name: str) -> R:
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def check(self, name: object, *also: str) -> str:
        """Return `name` if a row has it or if it is one of `also`.

        Raises:
            ValueError: The name is unknown; the message lists all names and suggests the closest.

        >>> Table("shapes", Row("disc", "round", "a:b"), Row("bar", "long", "a:c")).check("disk")
        Traceback (most recent call last):
        ValueError: the shapes are disc, bar, got 'disk'; did you mean 'disc'?
        """
        names = [*also, *self._rows]
        if isinstance(name, str) and name in names:
            return name
        from shards.cli.sentences import suggest  # late import: only a mistake needs it

        raise ValueError(f"the {self.plural} are {', '.join(names)}, got {name!r}{suggest(str(name), names)}")


@functools.cache
def load_builder(builder: str) -> Callable[..., Any]:
    """Import and return the function or class that `builder` names.

    >>> load_builder("shards.cli.table:Row").__name__
    'Row'
    """
    module, _, name = builder.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found
