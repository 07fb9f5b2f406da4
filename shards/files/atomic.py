"""Files and folders that are published whole or not at all, and a lock for folders."""

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
"""AT_FDCWD and RENAME_EXCHANGE of renameat2(2), for which Python has no constants."""
_UNABLE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)

_PIECES = 1 << 16
"""Pieces of JSON per write; each number is a piece."""


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[BinaryIO]:
    """Yield a binary file that replaces `path` when the block ends without an error.

    It is fsynced before the rename, so a power cut leaves either the old content or the new.

    Raises:
        DiskError: The disk refuses the data.
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
        with contextlib.suppress(OSError):  # renamed; or not removable, which must not hide the block's own error
            temporary.unlink()


@contextlib.contextmanager
def open_temporary_folder(path: Path, needed: str | None = None) -> Iterator[Path]:
    """Yield an empty folder beside `path` for intermediate files; it is removed after the block.

    Leftovers of dead processes are removed first.

    Args:
        path: What is being made.
        needed: What will be written, in words, for the error message of a full disk.

    Raises:
        DiskError: The disk refuses what the block writes.
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
    """Yield an empty folder that replaces `path` when the block ends without an error.

    However the process ends, `path` is either the whole old folder or the whole new one. On file systems that cannot
    exchange two names (NFS), `path` is briefly missing between two renames; after a crash there, the next writer
    restores the old folder.

    Args:
        path: The folder's final name.
        needed: See `open_temporary_folder`.
        replaces: Whether to replace an existing folder; if False, an existing folder is an error.

    Raises:
        DiskError: The disk refuses what the block writes.
    """
    with open_temporary_folder(path, needed) as temporary:
        yield temporary
        _sync_files(temporary)
        if replaces and path.is_dir() and not path.is_symlink():
            _swap(temporary, path)
        else:
            os.rename(temporary, path)


def _sync_files(folder: Path) -> None:
    """Fsync all files: a full disk, above all a network disk, may report its error only then."""
    for each in folder.rglob("*"):
        if each.is_file():
            with open(each, "rb") as file:
                os.fsync(file.fileno())


def _swap(new: Path, old: Path) -> None:
    """Give `new` the name of `old`; afterwards `old` has the temporary name or is removed."""
    if exchange_names(new, old):
        return
    aside = name_aside(old)
    os.rename(old, aside)
    os.rename(new, old)
    shutil.rmtree(aside)


def exchange_names(one: Path, other: Path) -> bool:
    """Exchange two paths; return False, with nothing changed, where the system or the file system cannot.

    Raises:
        OSError: A path does not exist or must not be renamed.
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
    """Append UTF-8 text to a file; raises DiskError if the disk refuses any of it."""
    with naming_disk(path), open(path, "a", encoding="utf-8") as file:
        file.write(text)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with write_atomically(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically. NaN and infinity are refused, because other JSON readers reject them."""
    pieces = json.JSONEncoder(indent=2, ensure_ascii=False, allow_nan=False).iterencode(value)
    with write_atomically(path) as file:
        # In batches: a confusion matrix of ten thousand classes has a hundred million numbers, each a piece of its own.
        while batch := "".join(itertools.islice(pieces, _PIECES)):
            file.write(batch.encode())
        file.write(b"\n")


@contextlib.contextmanager
def lock_folder(folder: Path, refusal: str | None = None) -> Iterator[None]:
    """Hold an exclusive lock on a folder; the kernel releases it if the process is killed.

    The folder itself is locked: removing a lock file would race with the next process that locks. On a disk shared by
    several machines, the lock excludes only processes of the same machine.

    Args:
        folder: Every process that changes it must take this lock.
        refusal: The error message if another process holds the lock; None waits for it instead.

    Raises:
        UsageError: Another process holds the lock.
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
