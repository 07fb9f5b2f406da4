"""`origin.json`: by which commands a dataset was packed. It is for people; the dataset's identity is without it."""

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
    """One call of `python -m shards pack`, without the dataset's name and without what changes no byte of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    """As it was given: where it is relative, to the folder in which the command ran."""
    options: list[str]
    """Words of the command line; those that have their defaults are left out."""
    update: int = 0
    """0: the dataset was made; n: its nth update."""


class Origin(BaseModel):
    """The content of `origin.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["shardline-origin"] = "shardline-origin"
    version: Literal[1] = 1
    commands: list[PackCommand] = []
    """In the order in which they ran; what was packed by a program, or before there were such files, is missing."""


_REMEDY = "delete it: nothing but reports reads it"


def find_commands(storage: Storage) -> tuple[PackCommand, ...]:
    """Return the commands recorded with a dataset that is being written; nothing where no whole record is there."""
    try:
        return tuple(parse_page(storage.read(ORIGIN_NAME), f"{storage}/{ORIGIN_NAME}", Origin, _REMEDY).commands)
    except (FileNotFoundError, ShardError):  # a damaged one is worth no dataset
        return ()


def record_command(storage: Storage, update: int, command: PackCommand | None) -> None:
    """Record what makes a dataset, or its nth update, before that is published; None where no command did.

    Whatever an earlier run recorded of this update or later ones, which were never published, is dropped.
    """
    commands = [each for each in find_commands(storage) if each.update < update]
    commands += [command.model_copy(update={"update": update})] if command else []
    if commands:
        page = Origin(commands=commands)
        storage.write(ORIGIN_NAME, (page.model_dump_json(indent=2) + "\n").encode())
    else:
        storage.delete([ORIGIN_NAME])


def read_origin(storage: Readable, deadline_s: float = 10.0) -> Origin:
    """Return what is recorded of a dataset; nothing where that cannot be read."""
    with contextlib.suppress(OSError, ShardError):
        return parse_page(fetch(storage, ORIGIN_NAME, deadline_s=deadline_s), ORIGIN_NAME, Origin, _REMEDY)
    return Origin()
