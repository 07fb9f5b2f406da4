"""How the current command was called, and its spelling in output: `shardline run` or `python -m trainer.run`.

All texts of the project use the form `python -m`, which is right in stored files as well. A process that was called as
`shardline` respells commands when it prints, so no message needs to know how it was called.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from shards.errors import UsageError

_by_console = False  # not a context variable: messages of other threads are printed, too


@contextlib.contextmanager
def called_by_console() -> Iterator[None]:
    """Spell commands as `shardline COMMAND` in everything that is printed while the block runs."""
    global _by_console
    before, _by_console = _by_console, True
    try:
        yield
    finally:
        _by_console = before


def respell(text: str) -> str:
    """Return `text` with its commands spelt as this process was called.

    >>> respell("`python -m trainer.models` lists them")
    '`python -m trainer.models` lists them'
    >>> with called_by_console():
    ...     respell("`python -m trainer.models` lists them; trainer.run takes what `shards pack` made, not trainer.x")
    '`shardline models` lists them; shardline run takes what `shardline pack` made, not trainer.x'
    """
    if not _by_console:
        return text
    pattern, names = _read_names()
    return pattern.sub(lambda found: names[" ".join(found[found.lastgroup or 0].split())], text)


@functools.cache
def _read_names() -> tuple[re.Pattern[str], dict[str, str]]:
    """Return the pattern that finds commands in a text, and the replacement for each command."""
    from shards.cli.commands import COMMANDS, CONSOLE  # late import: `python -m` does not need it

    rows = [row for row in COMMANDS.values() if row.package]
    names = {row.module: f"{CONSOLE} {row.name}" for row in rows} | {row.package: CONSOLE for row in rows}
    spaced = sorted((re.escape(name).replace(r"\ ", r"\s+") for name in names), key=len, reverse=True)
    # Unquoted and without `python -m`, "shards pack" is plain English, and "trainer" always is.
    dotted = [name for name in spaced if r"\." in name]
    quoted = [name for name in spaced if r"\s" in name]
    return (
        re.compile(
            rf"(?<![\w./-])(?:python\s+-m\s+(?P<a>{'|'.join(spaced)})|(?P<b>{'|'.join(dotted)})"
            rf"|(?<=`)(?P<c>{'|'.join(quoted)}))(?!\.?\w|[/-])"
        ),
        names,
    )


class CommandParser(argparse.ArgumentParser):
    """A command's parser; help and errors spell commands as they were called."""

    def __init__(self, *, prog: str, **options: Any) -> None:
        super().__init__(prog=respell(prog), **options)

    def format_help(self) -> str:
        described: list[Any] = [self, *self._action_groups]
        for each in described:
            each.description = respell(each.description or "") or None
        self.epilog = respell(self.epilog or "") or None
        for action in self._actions:
            action.help = respell(action.help) if action.help else action.help  # None and "" are not SUPPRESS
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with one sentence; an unknown option gets a suggestion."""
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            message = self.explain_unknown(unknown.split()[0])
        raise UsageError(f"{message}{'' if message.endswith('?') else ';'} `{self.prog} --help` lists what it takes")

    def explain_unknown(self, word: str) -> str:
        """Return what is wrong with a word that fits no argument."""
        from shards.cli.sentences import find_near  # late import: only a mistake needs it

        if not word.startswith("-"):
            return f"'{word}' is one argument too many"
        name = word.partition("=")[0]
        options = [option for action in self._actions for option in action.option_strings]
        near = find_near(name[2:], [option[2:] for option in options if option.startswith("--")])
        return f"there is no option {name}" + (f"; did you mean '--{near[0]}'?" if near else "")
