"""Tables of what people add: rows by name, each with a builder that is named as text and imported when it is needed.

A table lies with the options, which are read where no builder's library is wanted. `tests/test_architecture.py` lets a
builder's text in a table, and there alone, name a later room; `tests/test_tables.py` holds rows and builders together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeVar


@dataclass(frozen=True)
class Row:
    """One thing that can be chosen; a kind of things adds columns for what else differs."""

    name: str
    """As people type it."""
    summary: str
    """A line for help, in words that go on from the name."""
    builder: str
    """package.module:function that makes it; see `load_builder`."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Option that the builder takes as a keyword -> its default."""

    @property
    def uses(self) -> Mapping[str, Any]:
        """Return the options that it uses with their defaults: those of the builder, and others that a kind adds."""
        return self.defaults

    @property
    def help(self) -> str:
        """Return what help says of it, without the options."""
        return self.summary


R = TypeVar("R", bound=Row)


class Table(Mapping[str, R]):
    """Rows by their names, in order.

    Args:
        plural: What they are, for sentences: optimizers.
        rows: Of different names.
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
        """Return the name if a row has it, or if it is one of `also`.

        Raises:
            ValueError: None has; the message has all names, and a near one where there is one.

        >>> Table("shapes", Row("disc", "round", "a:b"), Row("bar", "long", "a:c")).check("disk")
        Traceback (most recent call last):
        ValueError: the shapes are disc, bar, got 'disk'; did you mean 'disc'?
        """
        names = [*also, *self._rows]
        if isinstance(name, str) and name in names:
            return name
        from shards.cli.sentences import suggest  # late: a mistake alone needs it

        raise ValueError(f"the {self.plural} are {', '.join(names)}, got {name!r}{suggest(str(name), names)}")


@functools.cache
def load_builder(builder: str) -> Callable[..., Any]:
    """Return the function or class that a text names, its module imported now.

    >>> load_builder("shards.cli.table:Row").__name__
    'Row'
    """
    module, _, name = builder.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found
