"""Names under which files and folders are written before they are published, and what dead processes left of them.

A temporary is `NAME.partial-HOST-PID`, a folder that made way for a new one `NAME.aside-HOST-PID`: on a disk that
machines share, process ids of one mean nothing on another. Who writes one holds its lock (flock), which the kernel
frees however the process ends: in a container that starts anew, the process that left something often had the very id
of the one that finds it.
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

TEMPORARY, _ASIDE = ".partial", ".aside"
_NAME = re.compile(r"(.+)(\.partial|\.aside)-(?:([0-9a-f]{8})-)?(\d+)", re.DOTALL)
_IDLE_S = 3600.0
"""A writer on another machine that has not touched what it writes for so long is dead, or as good as dead."""


def name_temporary(path: Path) -> Path:
    """Return where this process writes what becomes `path`."""
    return path.with_name(f"{path.name}{TEMPORARY}-{_name_host()}-{os.getpid()}")


def name_aside(path: Path) -> Path:
    """Return where this process puts the folder `path` until its successor has that name."""
    return path.with_name(f"{path.name}{_ASIDE}-{_name_host()}-{os.getpid()}")


def is_leftover(name: str) -> bool:
    """Say whether a name is that of a temporary, which a process writes, or was killed before it could remove.

    >>> is_leftover("0.tar.partial-0123abcd-7"), is_leftover("0.tar.partial-7"), is_leftover("0.tar.partial")
    (True, True, False)
    """
    return _NAME.fullmatch(name) is not None


def remove_leftovers(path: Path) -> None:
    """Remove what dead processes left beside `path` of earlier ways to write it; what they put aside is put back."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for other in list(path.parent.iterdir()):
            match = _NAME.fullmatch(other.name)
            if match and match[1] == path.name:
                _remove_dead(other, match)


def clear_leftovers(folder: Path) -> None:
    """Remove what dead processes left anywhere below `folder`; what they put aside is put back."""
    for parent, folders, files in os.walk(folder):
        left = {name: match for name in [*folders, *files] if (match := _NAME.fullmatch(name))}
        folders[:] = [name for name in folders if name not in left]
        for name, match in left.items():
            _remove_dead(Path(parent, name), match)


@contextlib.contextmanager
def holding(handle: int) -> Iterator[None]:
    """Say by the lock of an open temporary that its writer lives, where the file system has locks."""
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    yield


def _remove_dead(path: Path, match: re.Match[str]) -> None:
    with contextlib.suppress(FileNotFoundError):
        if _is_living(path, host=match[3], pid=int(match[4])):
            return
        was = path.with_name(match[1])
        if match[2] == _ASIDE and not was.exists():
            path.rename(was)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _is_living(path: Path, host: str | None, pid: int) -> bool:
    """Say whether the process that writes a temporary may still do so.

    Raises:
        FileNotFoundError: It is gone.
    """
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
