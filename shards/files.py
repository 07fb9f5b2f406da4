"""Files that appear whole or not at all, and folders that one process at a time may change."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from shards.errors import UsageError

TEMPORARY = ".partial"


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[BinaryIO]:
    """Yield a binary file that takes the place of `path` when the block ends without an error.

    It is fsynced before the rename, so that a power cut leaves the old content or the new one.
    """
    temporary = path.with_name(f"{path.name}{TEMPORARY}-{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with write_atomically(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; NaN and infinity are refused, because other readers refuse them."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def lock_folder(folder: Path, refusal: str | None = None) -> Iterator[None]:
    """Hold the only right to change a folder; the kernel frees what a killed process held.

    The folder itself is locked: a lock file would have to be removed, and its removal races with the next. On a disk
    that machines share, those of one machine alone exclude each other.

    Args:
        folder: Whoever changes it must take the lock.
        refusal: What to say where another process holds it; None waits for that one.

    Raises:
        UsageError: Another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if refusal is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise UsageError(refusal) from err
        yield
    finally:
        os.close(handle)
