"""The folder of a cache that all processes of a node share: its files, who uses them, and which are evicted.

Every file in use is locked (flock), so that the kernel releases the locks of a killed process: LOCK_SH on a finished
file while it is leased, LOCK_EX on a partial file while it is downloaded. Files are created, locked, renamed and
removed only under the lock of the folder itself, which is held for milliseconds: a lock is therefore always on the
file that currently has the name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from shards.errors import UsageError
from shards.files.atomic import lock_folder
from shards.files.disk import DiskError

_NAME = re.compile(r"([0-9a-f]{64}(?:\.[A-Za-z0-9]{1,16})?)(?:\.(\d+)\.partial)?")
_NEVER_USED = 0  # access time of a file that was prefetched but never leased
_SPARED_S = 900.0  # how long a prefetch spares other prefetched files that were not leased yet


class NoRoomError(UsageError):
    """The cache's limit is too small for the files in use at the same time."""


@dataclass(frozen=True)
class Entry:
    """A file identified by content: `key` is its digest with the suffix of its name."""

    key: str
    size: int


@dataclass(frozen=True)
class _Kept:
    path: Path
    size: int
    """Bytes on disk; for a partial file, its final size."""
    used: float
    """When it was last leased or fetched, in seconds since the epoch."""
    awaited: bool
    """Whether it was prefetched but not leased yet."""
    partial: bool


class CacheFolder:
    """A folder with at most `limit_bytes` of cached files; other files in it are neither counted nor touched."""

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self.root, self.limit_bytes = root, limit_bytes
        root.mkdir(parents=True, exist_ok=True)

    def hold(self, key: str, size: int | None, *, awaited: bool = False) -> BinaryIO | None:
        """Return a finished file, locked against eviction until it is closed; None if it is not here.

        awaited: whether it is only prefetched, not used yet.
        """
        with lock_folder(self.root):
            return self._hold(key, size, awaited)

    def claim(self, entry: Entry, *, needed: bool) -> BinaryIO | None:
        """Make room and return the partial file of `entry`, locked, for the caller to fill; None means to ask again
        later.

        None: the file has arrived, another process is filling it, or files being filled take up the room.

        Raises:
            NoRoomError: All files that could leave are in use; if `entry` is only prefetched, or themselves prefetched.
        """
        with lock_folder(self.root):
            if (self.root / entry.key).exists():
                return None
            partial = self._partial(entry)
            if not partial.exists() and not self._make_room(entry, needed):
                return None
            file = open(os.open(partial, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)  # noqa: SIM115
            if _lock(file, fcntl.LOCK_EX):
                return file
            file.close()
            return None

    def publish(self, entry: Entry, file: BinaryIO, *, awaited: bool) -> None:
        """Give a filled partial file its final name; `file` then locks it against eviction."""
        os.fsync(file.fileno())  # from now on the file is trusted by its name, also after a power cut
        with lock_folder(self.root):
            os.rename(self._partial(entry), self.root / entry.key)
            _lock(file, fcntl.LOCK_SH)
            touch(file, awaited=awaited)

    def discard(self, entry: Entry, file: BinaryIO) -> None:
        """Remove a partial file that will not be filled."""
        with lock_folder(self.root):
            self._partial(entry).unlink(missing_ok=True)
            file.close()

    def full_disk(self, err: OSError, entry: Entry) -> DiskError:
        """Return the error for a full disk, with its free bytes."""
        free = shutil.disk_usage(self.root).free
        return DiskError(
            err.errno or 0,
            f"{self.root}: the disk of the cache is full ({os.strerror(err.errno or 0)}: {free:,} bytes free, "
            f"{entry.size:,} needed)",
            "free some, lower storage.cache_bytes",
            "name a folder on another disk with storage.cache",
            str(self.root),
        )

    def _partial(self, entry: Entry) -> Path:
        return self.root / f"{entry.key}.{entry.size}.partial"

    def _hold(self, key: str, size: int | None, awaited: bool) -> BinaryIO | None:
        path = self.root / key
        try:
            file = open(path, "rb", buffering=0)  # noqa: SIM115, it is the lock
        except FileNotFoundError:
            return None
        if size is not None and os.fstat(file.fileno()).st_size != size:
            path.unlink()
            file.close()
            return None
        _lock(file, fcntl.LOCK_SH)
        touch(file, awaited=awaited)
        return file

    def _make_room(self, entry: Entry, needed: bool) -> bool:
        """Remove files to make room for `entry`, the longest unused first; False if files being filled take up the
        room.
        """
        if entry.size > self.limit_bytes:
            raise NoRoomError(
                f"a file of {entry.size:,} bytes does not fit into the cache {self.root}, whose limit is "
                f"{self.limit_bytes:,} bytes; raise storage.cache_bytes"
            )
        kept = list(self._scan())
        excess = sum(file.size for file in kept) + entry.size - self.limit_bytes
        leaving: list[Path] = []
        for file in sorted(kept, key=_rank):
            if excess <= 0:
                break
            if (needed or file.partial or not _is_spared(file)) and _is_free(file.path):
                leaving.append(file.path)
                excess -= file.size
        if excess <= 0:
            for path in leaving:
                path.unlink(missing_ok=True)
            return True
        in_use = [file for file in kept if not _is_free(file.path)]
        if needed and any(file.partial for file in in_use):
            return False
        used = sum(file.size for file in in_use)
        raise NoRoomError(
            f"the cache {self.root} is full of files in use: {used:,} of its {self.limit_bytes:,} bytes, and "
            f"{entry.size:,} more are needed; raise storage.cache_bytes, or lower stream.lanes or stream.window_bytes"
        )

    def _scan(self) -> Iterator[_Kept]:
        for item in os.scandir(self.root):
            match = _NAME.fullmatch(item.name)
            if match is None:
                continue
            with contextlib.suppress(FileNotFoundError):
                stat = item.stat()
                size = int(match[2]) if match[2] else stat.st_size
                awaited = stat.st_atime_ns == _NEVER_USED
                yield _Kept(Path(item.path), size, stat.st_mtime, awaited, match[2] is not None)


def touch(file: BinaryIO, *, awaited: bool = False) -> None:
    """Record in a file's times that it is used now, or (`awaited`) only prefetched."""
    now = time.time_ns()
    with contextlib.suppress(PermissionError):  # a file of another user: its age counts from its download
        os.utime(file.fileno(), ns=(_NEVER_USED if awaited else now, now))


def is_full(err: OSError) -> bool:
    """Return whether a write failed because the disk is full."""
    return err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _rank(file: _Kept) -> tuple[bool, bool, float]:
    """Return the order of eviction: abandoned partial files, then the longest unused; prefetched ones last, latest
    first.
    """
    return not file.partial, file.awaited, -file.used if file.awaited else file.used


def _is_spared(file: _Kept) -> bool:
    return file.awaited and time.time() - file.used < _SPARED_S


def _is_free(path: Path) -> bool:
    """Return whether no process uses a file. The folder is locked, so none can start to."""
    try:
        with open(path, "rb", buffering=0) as file:
            return _lock(file, fcntl.LOCK_EX)
    except FileNotFoundError:  # removed by a program that ignores our locks
        return True


def _lock(file: BinaryIO, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
