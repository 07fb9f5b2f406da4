"""The command of a job: its spelling, and which of its arguments are files that go along."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.cli.commands import COMMANDS, Command
from shards.cli.sentences import suggest
from shards.errors import UsageError
from shards.storage.shown import mask_keys

CARRIED_BYTES = 1 << 20
"""The largest file of an argument that goes along; recipes and spaces have a thousandth of it."""
_NAMED = ("run", "sweep")
"""Commands whose first words may be names of built-in recipes and spaces, whatever folder has the same name here."""


@dataclass(frozen=True)
class JobCommand:
    """A command of this project with its arguments.

    files: Relative paths of the files here that its arguments name; they go along.
    """

    row: Command
    arguments: tuple[str, ...]
    files: tuple[Path, ...] = ()

    def spell(self, python: str, *more: str) -> str:
        """Return it as a line for a shell, which the interpreter replaces, so that a signal reaches it."""
        return shlex.join(["exec", python, "-m", *self.row.module.split(), *self.arguments, *more])

    def __str__(self) -> str:
        return shlex.join([*self.row.module.split(), *self.arguments])


def read_command(words: Sequence[str]) -> JobCommand:
    """Return the command that `words` name, as after `python -m` or after `shardline`.

    Raises:
        UsageError: There is no such command; an argument has keys in it, or names a folder of this machine by a path
            that means something else on the cluster.
    """
    row, arguments = _find_row(words)
    masked = next((mask_keys(word) for word in arguments if mask_keys(word) != word), None)
    if masked is not None:
        raise UsageError(
            f"{masked} has keys in it, which all who may list the cluster's jobs would see; leave them out, and set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY on the cluster's nodes"
        )
    named = [path for word in arguments for path in _find_here(row, word)]
    for path in named:
        _refuse_what_stays(path)
    return JobCommand(row, tuple(arguments), tuple(path for path in named if path.is_file()))


def _find_row(words: Sequence[str]) -> tuple[Command, list[str]]:
    if not words:
        raise UsageError("give the command after `--`: `python -m cluster.submit -- trainer.run RECIPE name=value`")
    by_words = {tuple(row.module.split()): row for row in COMMANDS.values() if row.package}
    for length in (2, 1):
        row = by_words.get(tuple(words[:length]))
        if row is not None:
            return row, list(words[length:])
    if words[0] in COMMANDS:
        return COMMANDS[words[0]], list(words[1:])
    known = [*COMMANDS, *(row.module for row in by_words.values())]
    given = " ".join(words[:2]) if words[0] == "shards" else words[0]
    raise UsageError(
        f"there is no command '{given}'{suggest(given, known, otherwise='; `shardline` lists all')}"
        if words[0] not in ("python", "python3", "shardline")
        else f"leave '{words[0]}' out; after `--` comes the command itself, such as trainer.run"
    )


def _find_here(row: Command, word: str) -> list[Path]:
    """Return the file or folder of this machine that an argument names by a relative path; none, or one."""
    if word.startswith("-") and "=" not in word:
        return []
    value = word.partition("=")[2] if "=" in word else word
    if not value or "://" in value or Path(value).is_absolute():
        return []
    path = next((Path(each) for each in (value, value.rpartition(":")[0]) if each and Path(each).exists()), None)
    if path is None or (path.is_dir() and value == word and "/" not in word and row.name in _NAMED):
        return []
    return [path]


def _refuse_what_stays(path: Path) -> None:
    if ".." in path.parts:
        raise UsageError(
            f"{path} is a place beside the current folder, and a job runs in a folder of its own; give a path from the "
            f"root, {path.resolve()}, if every node sees it"
        )
    if path.is_dir():
        raise UsageError(
            f"{path} is a folder of this machine, and a job runs in a folder of its own on the cluster; give "
            f"{path.resolve()} if every node sees it, or s3://BUCKET/..."
        )
    if path.stat().st_size > CARRIED_BYTES:
        raise UsageError(
            f"{path} has {path.stat().st_size:,} bytes, and only files of up to {CARRIED_BYTES:,} go along with a job; "
            f"give {path.resolve()} if every node sees it, or s3://BUCKET/..."
        )
