"""Files that appear whole or not at all, and folders that one process at a time may change."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from shards.errors import UsageError
from shards.files.disk import naming_disk
from shards.files.temporary import holding, name_aside, name_temporary, remove_leftovers

_HERE, _EXCHANGE = -100, 2
"""AT_FDCWD and RENAME_EXCHANGE of renameat2(2), which Python has no name for."""
_UNABLE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)

_PIECES = 1 << 16
"""Of JSON that are written at once; a number is one."""


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[BinaryIO]:
    """Yield a binary file that takes the place of `path` when the block ends without an error.

    It is fsynced before the rename, so that a power cut leaves the old content or the new one.

    Raises:
        DiskError: The disk does not take it.
    """
    temporary = name_temporary(path)
    try:
        with naming_disk(path, temporary=temporary):
            with open(temporary, "wb") as file, holding(file.fileno()):
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # not there; and what cannot be removed is not what ended the block
            temporary.unlink()


@contextlib.contextmanager
def open_temporary_folder(path: Path, needed: str | None = None) -> Iterator[Path]:
    """Yield an empty folder beside `path` for what is made on the way to it; it is gone after the block.

    What dead processes left of earlier ones is removed first.

    Args:
        path: What is made.
        needed: What will be written, in words, for the error of a disk that does not take it.

    Raises:
        DiskError: The disk does not take what the block writes.
    """
    temporary = name_temporary(path)
    remove_leftovers(path)
    try:
        with naming_disk(path, needed, temporary=temporary):
            temporary.mkdir(parents=True)
            handle = os.open(temporary, os.O_RDONLY)
            try:
                with holding(handle):
                    yield temporary
            finally:
                os.close(handle)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def replace_folder(path: Path, needed: str | None = None, *, replaces: bool = True) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `path` when the block ends without an error.

    At every moment `path` is the old folder or the new one, whole, however the process ends. Where the file system
    cannot exchange two names (NFS), it is neither between two renames, and the next one to write puts the old back.

    Args:
        path: Its name from then on.
        needed: See `open_temporary_folder`.
        replaces: Whether a folder that is there goes; else it is an error.

    Raises:
        DiskError: The disk does not take what the block writes.
    """
    with open_temporary_folder(path, needed) as temporary:
        yield temporary
        _sync_files(temporary)
        if replaces and path.is_dir() and not path.is_symlink():
            _swap(temporary, path)
        else:
            os.rename(temporary, path)


def _sync_files(folder: Path) -> None:
    """Return once all files are on the disk; a full one, of a network above all, may say so only then."""
    for each in folder.rglob("*"):
        if each.is_file():
            with open(each, "rb") as file:
                os.fsync(file.fileno())


def _swap(new: Path, old: Path) -> None:
    """Give a folder the name of another, which then has the name of a temporary, or is gone."""
    if exchange_names(new, old):
        return
    aside = name_aside(old)
    os.rename(old, aside)
    os.rename(new, old)
    shutil.rmtree(aside)


def exchange_names(one: Path, other: Path) -> bool:
    """Let two paths change places; False, and nothing is done, where the system or the file system cannot.

    Raises:
        OSError: One is not there, or must not be renamed.
    """
    if _renameat2 is None:
        return False
    if _renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNABLE:
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))


def append_text(path: Path, text: str) -> None:
    """Add UTF-8 text at the end of a file; raises DiskError where the disk does not take it all."""
    with naming_disk(path), open(path, "a", encoding="utf-8") as file:
        file.write(text)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with write_atomically(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; NaN and infinity are refused, because other readers refuse them."""
    pieces = json.JSONEncoder(indent=2, ensure_ascii=False, allow_nan=False).iterencode(value)
    with write_atomically(path) as file:
        # Not at once: a confusion matrix of ten thousand classes is a hundred million numbers, and a piece each.
        while batch := "".join(itertools.islice(pieces, _PIECES)):
            file.write(batch.encode())
        file.write(b"\n")


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
