"""Temporary names of files and folders before they are published, and removal of those that dead processes left.

A temporary is `NAME.partial-HOST-PID`; an old folder that made way for a new one is `NAME.aside-HOST-PID`. The host is
there because process ids mean nothing on another machine that shares the disk. Each writer holds a lock (flock) on its
temporary, which the kernel releases however the process ends: the process id alone does not do, because in a restarted
container the new process often has the id of the one that died.
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
"""A writer on another machine that has not touched its file for so long counts as dead."""


def name_temporary(path: Path) -> Path:
    """Return the name under which this process writes `path` before it is published."""
    return path.with_name(f"{path.name}{TEMPORARY}-{_name_host()}-{os.getpid()}")


def name_aside(path: Path) -> Path:
    """Return the name under which this process keeps the folder `path` until its replacement is in place."""
    return path.with_name(f"{path.name}{_ASIDE}-{_name_host()}-{os.getpid()}")


def is_leftover(name: str) -> bool:
    """Return whether a name is that of a temporary, in use or left by a killed process.

    >>> is_leftover("0.tar.partial-0123abcd-7"), is_leftover("0.tar.partial-7"), is_leftover("0.tar.partial")
    (True, True, False)
    """
    return _NAME.fullmatch(name) is not None


def remove_leftovers(path: Path) -> None:
    """Remove temporaries of `path` left by dead processes; restore a folder that they had set aside."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for other in list(path.parent.iterdir()):
            match = _NAME.fullmatch(other.name)
            if match and match[1] == path.name:
                _remove_dead(other, match)


def clear_leftovers(folder: Path) -> None:
    """Remove temporaries left by dead processes anywhere below `folder`; restore folders that they had set aside."""
    for parent, folders, files in os.walk(folder):
        left = {name: match for name in [*folders, *files] if (match := _NAME.fullmatch(name))}
        folders[:] = [name for name in folders if name not in left]
        for name, match in left.items():
            _remove_dead(Path(parent, name), match)


@contextlib.contextmanager
def holding(handle: int) -> Iterator[None]:
    """Lock an open temporary, to show that its writer is alive; without effect where the file system has no locks."""
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
    """Return whether the process that writes a temporary may still be alive.

    Raises:
        FileNotFoundError: The temporary no longer exists.
    """
    if _is_locked(path):
        return True
    if host in (None, _name_host()) and (pid == os.getpid() or not Path(f"/proc/{pid}").exists()):
        return False
    # A name without a host was made by an older version: a live process with that id counts as its writer.
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
    """Return when a file, or the newest file of a folder, was last written, in seconds since the epoch."""
    inside = path.rglob("*") if path.is_dir() else ()
    return max(each.stat().st_mtime for each in [path, *inside])


def _name_host() -> str:
    """Return 8 hexadecimal digits that identify this machine."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
