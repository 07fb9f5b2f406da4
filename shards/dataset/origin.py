"""`origin.json`: the commands that packed a dataset. It is for people and not part of the dataset's identity."""

from __future__ import annotations

import contextlib
from typing import Literal

from pydantic import BaseModel, ConfigDict

from shards.errors import ShardError
from shards.files.versioned import parse_page
from shards.storage.download import fetch
from shards.storage.readable import Readable
from shards.storage.storage import Storage

ORIGIN_NAME = "origin.json"


class PackCommand(BaseModel):
    """One call of `python -m shards pack`, without the dataset's name and options that do not change the result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    """As given; a relative path is relative to the folder in which the command ran."""
    options: list[str]
    """Words of the command line; defaults are omitted."""
    update: int = 0
    """0: the command that made the dataset; n: its nth update."""


class Origin(BaseModel):
    """The content of `origin.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["shardline-origin"] = "shardline-origin"
    version: Literal[1] = 1
    commands: list[PackCommand] = []
    """In the order in which they ran; missing for programs' calls and for datasets older than this file."""


_REMEDY = "delete it: only reports read it"


def find_commands(storage: Storage) -> tuple[PackCommand, ...]:
    """Return the commands recorded with a dataset that is being written; none if there is no valid record."""
    try:
        return tuple(parse_page(storage.read(ORIGIN_NAME), f"{storage}/{ORIGIN_NAME}", Origin, _REMEDY).commands)
    except (FileNotFoundError, ShardError):  # a damaged record must not make the dataset unusable
        return ()


def record_command(storage: Storage, update: int, command: PackCommand | None) -> None:
    """Record the command that makes a dataset, or its nth update, before that is published; None if no command did.

    Records of this or later updates by an earlier run are dropped: those updates were never published.
    """
    commands = [each for each in find_commands(storage) if each.update < update]
    commands += [command.model_copy(update={"update": update})] if command else []
    if commands:
        page = Origin(commands=commands)
        storage.write(ORIGIN_NAME, (page.model_dump_json(indent=2) + "\n").encode())
    else:
        storage.delete([ORIGIN_NAME])


def read_origin(storage: Readable, deadline_s: float = 10.0) -> Origin:
    """Return a dataset's recorded commands; none if they cannot be read."""
    with contextlib.suppress(OSError, ShardError):
        return parse_page(fetch(storage, ORIGIN_NAME, deadline_s=deadline_s), ORIGIN_NAME, Origin, _REMEDY)
    return Origin()
