"""Names under which files and folders are written before they are published, and what dead processes left of them.

A temporary is `NAME.partial-HOST-PID`: on a disk that machines share, process ids of one mean nothing on another. Who
writes one holds its lock (flock), which the kernel frees however the process ends: in a container that starts anew, the
process that left something often had the very id of the one that finds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

TEMPORARY = ".partial"
_NAME = re.compile(re.escape(TEMPORARY) + r"-(?:([0-9a-f]{8})-)?(\d+)$")
_IDLE_S = 3600.0
"""A writer on another machine that has not touched what it writes for so long is dead, or as good as dead."""


def name_temporary(path: Path) -> Path:
    """Return where this process writes what becomes `path`."""
    return path.with_name(f"{path.name}{TEMPORARY}-{_name_host()}-{os.getpid()}")


def is_leftover(name: str) -> bool:
    """Say whether a name is that of a temporary, which somebody writes, or who was killed could not remove.

    >>> is_leftover("0.tar.partial-0123abcd-7"), is_leftover("0.tar.partial-7"), is_leftover("0.tar.partial")
    (True, True, False)
    """
    return _NAME.search(name) is not None


def remove_leftovers(path: Path) -> None:
    """Remove what dead processes left beside `path` of earlier ways to write it."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for other in list(path.parent.iterdir()):
            if other.name.startswith(f"{path.name}{TEMPORARY}-") and is_leftover(other.name):
                _remove_dead(other)


def clear_leftovers(folder: Path) -> None:
    """Remove what dead processes left anywhere below `folder`."""
    for parent, folders, files in os.walk(folder):
        left = [name for name in [*folders, *files] if is_leftover(name)]
        folders[:] = [name for name in folders if name not in left]
        for name in left:
            _remove_dead(Path(parent, name))


@contextlib.contextmanager
def holding(handle: int) -> Iterator[None]:
    """Say by the lock of an open temporary that its writer lives, where the file system has locks."""
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    yield


def _remove_dead(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if _is_living(path):
            return
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _is_living(path: Path) -> bool:
    """Say whether the process that writes a temporary may still do so.

    Raises:
        FileNotFoundError: It is gone.
    """
    match = _NAME.search(path.name)
    assert match is not None
    host, pid = match[1], int(match[2])
    if _is_locked(path):
        return True
    if host in (None, _name_host()) and (pid == os.getpid() or not Path(f"/proc/{pid}").exists()):
        return False
    # A name without a host is from before names had one: the process that has the id is taken for its writer.
    return host is None or time.time() - _read_touched(path) < _IDLE_S


def _is_locked(path: Path) -> bool:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(handle)
    return False


def _read_touched(path: Path) -> float:
    """Return when a file, or the newest file of a folder, was last written, in seconds of the clock."""
    inside = path.rglob("*") if path.is_dir() else ()
    return max(each.stat().st_mtime for each in [path, *inside])


def _name_host() -> str:
    """Return 8 hexadecimal digits that stand for this machine."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
