"""The folder of a cache that all processes of a node share: what is in it, who holds it, and what must leave.

Every file is locked (flock) by those who use it, so that the kernel frees what a killed process held: LOCK_SH on a
finished file while it is leased, LOCK_EX on a partial one while it is downloaded. Files appear, take a lock, change
their name and vanish only under the lock of the folder itself, which is held for milliseconds: a lock that somebody
got is thus a lock on the file that has the name.
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
_NEVER_USED = 0  # access time of a file that was prefetched and not leased so far
_SPARED_S = 900.0  # so long a prefetch leaves alone what another one brought and nobody has leased yet


class NoRoomError(UsageError):
    """The cache's limit is too small for what is in use at the same time."""


@dataclass(frozen=True)
class Entry:
    """A file by its content: `key` is its digest, with the suffix that its name had."""

    key: str
    size: int


@dataclass(frozen=True)
class _Kept:
    path: Path
    size: int
    """Bytes on disk; of a partial file, those that it will have."""
    used: float
    """When it was leased or brought last, in seconds of the clock."""
    awaited: bool
    """Whether it was prefetched and not leased so far."""
    partial: bool


class CacheFolder:
    """A folder with at most `limit_bytes` of files; other files in it are neither counted nor touched."""

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self.root, self.limit_bytes = root, limit_bytes
        root.mkdir(parents=True, exist_ok=True)

    def hold(self, key: str, size: int | None, *, awaited: bool = False) -> BinaryIO | None:
        """Return a finished file, locked against eviction until it is closed; None when it is not here.

        awaited: It is not used yet, only wanted soon.
        """
        with lock_folder(self.root):
            return self._hold(key, size, awaited)

    def claim(self, entry: Entry, *, needed: bool) -> BinaryIO | None:
        """Return the partial file of `entry`, room made and locked, for the caller to fill; None to ask again later.

        None: it is here by now, somebody else is filling it, or what others are filling has the room.

        Raises:
            NoRoomError: Everything that could leave is in use; of a file that is not needed yet, all that is awaited.
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
        """Give a filled partial file its name; `file` then holds it against eviction."""
        os.fsync(file.fileno())  # a file is trusted by its name ever after, also after a power cut
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
        """Return the error for a disk without room, with what is free on it."""
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
        """Remove what must leave for `entry`, the longest unused first; False when others' downloads have the room."""
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
    """Note in a file's times that it is used now, or wanted soon."""
    now = time.time_ns()
    with contextlib.suppress(PermissionError):  # a file of another user: it ages from when it came
        os.utime(file.fileno(), ns=(_NEVER_USED if awaited else now, now))


def is_full(err: OSError) -> bool:
    """Return whether a write failed for want of room."""
    return err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _rank(file: _Kept) -> tuple[bool, bool, float]:
    """Return the order of leaving: the dead, then the longest unused; of those awaited, the last that was asked for."""
    return not file.partial, file.awaited, -file.used if file.awaited else file.used


def _is_spared(file: _Kept) -> bool:
    return file.awaited and time.time() - file.used < _SPARED_S


def _is_free(path: Path) -> bool:
    """Return whether nobody uses a file. The folder is locked: nobody begins to meanwhile."""
    try:
        with open(path, "rb", buffering=0) as file:
            return _lock(file, fcntl.LOCK_EX)
    except FileNotFoundError:  # somebody cleans up here who knows no locks
        return True


def _lock(file: BinaryIO, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
