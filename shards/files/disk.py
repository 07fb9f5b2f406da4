"""Disk errors, recognised whichever library was writing, as one sentence with the remedy."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

from shards.files.sizes import format_size, measure

_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_NUMBERED = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")
"""How errors of the operating system appear in messages of Rust (safetensors) and of Python, once Ray has made them
text.
"""
_ELSEWHERE = "name a folder on another disk"
MOVE_TEMPORARIES = "set TMPDIR to a folder on another disk"


class DiskError(OSError):
    """A disk that refuses what is written to it.

    fact: what it refuses, with the values; remedy: what helps; elsewhere: an alternative remedy, if there is one.
    """

    def __init__(self, code: int, fact: str, remedy: str, elsewhere: str = "", path: str | None = None) -> None:
        super().__init__(code, fact, path)
        self.fact, self.remedy, self.elsewhere = fact, remedy, elsewhere

    def __str__(self) -> str:
        return f"{self.fact}; {self.remedy}" + (f", or {self.elsewhere}" if self.elsewhere else "")

    def __reduce__(self) -> tuple[type[DiskError], tuple[int | None, str, str, str, str | None]]:
        return DiskError, (self.errno, self.fact, self.remedy, self.elsewhere, self.filename)


@contextlib.contextmanager
def naming_disk(
    path: Path, needed: str | None = None, elsewhere: str = _ELSEWHERE, temporary: Path | None = None
) -> Iterator[None]:
    """Turn disk errors of the block into a DiskError that names the folder of `path`.

    Args:
        path: What is written.
        needed: Its size in words, if known; otherwise it is reported as more than `temporary` holds.
        elsewhere: The remedy of using another disk, in words.
        temporary: The file or folder being written. It still exists when the block fails and is removed afterwards, so
            its bytes count as free.
    """
    try:
        yield
    except Exception as err:
        given_back = 0 if temporary is None else measure(temporary)
        needed = needed or (f"more than {format_size(given_back)}" if given_back else None)
        refused = explain_disk(err, path, needed, elsewhere, given_back)
        if refused is None or refused is err:
            raise
        raise refused from err


def explain_disk(
    err: BaseException,
    path: Path | None = None,
    needed: str | None = None,
    elsewhere: str = _ELSEWHERE,
    given_back: int = 0,
) -> DiskError | None:
    """Return the disk error behind `err`, or None if `err` is about something else.

    Args:
        err: An error of any library; its causes are searched as well.
        path: What was written, for errors that name no file.
        needed: Its size in words, if known.
        elsewhere: The remedy of using another disk, in words.
        given_back: Bytes that are about to be freed.

    >>> str(explain_disk(RuntimeError("I/O error: Read-only file system (os error 30)")))
    'a disk is read-only; mount it so that it can be written, or name a folder on another disk'
    >>> explain_disk(ValueError("no number")) is None
    True
    """
    found = _find(err)
    if found is None or isinstance(found, DiskError):
        return found
    assert found.errno is not None
    if isinstance(found.filename, str):
        path = Path(found.filename)
    folder = None if path is None else _find_folder(path)
    where = "a disk" if folder is None else f"the disk of {folder}"
    needs = f"{needed} needed" if needed else ""
    name = None if folder is None else str(folder)
    if found.errno == errno.EFBIG:
        return DiskError(found.errno, *_describe_limit(where, needs, elsewhere), name)
    if found.errno == errno.EROFS:
        fact, remedy = f"{where} is read-only", "mount it so that it can be written"
    elif found.errno == errno.EIO:
        fact, remedy = f"{where} fails ({os.strerror(errno.EIO)})", "see the system's log"
    elif found.errno == errno.EDQUOT:
        fact, remedy = f"your quota on {where} is used up{_enclose(needs)}", "free some of it, have it raised"
    else:
        fact = (
            f"{where} is full{_enclose(needs)}" if folder is None else _describe_full(folder, where, needs, given_back)
        )
        remedy = "free some room there"
    return DiskError(found.errno, fact, remedy, elsewhere, name)


def _find(err: BaseException | None) -> OSError | None:
    """Return the system's disk error that is or caused `err`."""
    seen: set[int] = set()
    while err is not None and id(err) not in seen:
        seen.add(id(err))
        if isinstance(err, OSError):
            if err.errno in _CODES:
                return err
        elif (code := _read_code(str(err))) is not None:
            return OSError(code, os.strerror(code))
        err = err.__cause__ or (None if err.__suppress_context__ else err.__context__)
    return None


def _read_code(text: str) -> int | None:
    """Return the number of the disk error that a library's message contains."""
    for match in _NUMBERED.finditer(text):
        if int(match[1] or match[2]) in _CODES:
            return int(match[1] or match[2])
    return next((code for code in _CODES if os.strerror(code) in text), None)


def _find_folder(path: Path) -> Path:
    """Return `path` if it is a folder, else its nearest existing parent."""
    there = path.absolute()
    while not there.is_dir() and there != there.parent:
        there = there.parent
    return there


def _describe_full(folder: Path, where: str, needs: str, given_back: int) -> str:
    disk = os.statvfs(folder)
    free = f"{format_size(disk.f_bavail * disk.f_frsize + given_back)} free"
    if disk.f_files and not disk.f_favail:
        return f"{where} has no room for one more file (0 inodes free, {free})"
    return f"{where} is full{_enclose(free, needs)}"


def _describe_limit(where: str, needs: str, elsewhere: str) -> tuple[str, str, str]:
    """Return fact, remedy and `elsewhere` for a file that exceeds a size limit."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit == resource.RLIM_INFINITY:
        return f"{where} takes no file of that size{_enclose(needs)}", "make the file smaller", elsewhere
    allowed = f"{format_size(limit)} allowed"
    return f"a file on {where} is larger than `ulimit -f` allows{_enclose(allowed, needs)}", "raise that limit", ""


def _enclose(*words: str) -> str:
    """Return the non-empty words in parentheses.

    >>> _enclose("1 free", ""), _enclose("")
    (' (1 free)', '')
    """
    listed = ", ".join(filter(None, words))
    return f" ({listed})" if listed else ""
