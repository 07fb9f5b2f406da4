"""A run's files in an object store; every call is retried until it succeeds or its deadline passes."""

from __future__ import annotations

import contextlib
import logging
import queue
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from shards.files.disk import DiskError, naming_disk
from shards.files.temporary import holding, name_temporary
from shards.storage.download import download
from shards.storage.readable import naming, one_line
from shards.storage.storage import ObjectStorage, open_readable, open_storage

_BACKOFF_S = (0.2, 5.0)  # shortest and longest
_COPY_BYTES = 8 << 20
_POLL_S = 0.5

_jitter = random.Random()  # separate, because training seeds the module's generator
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class RunStore:
    """Files of one run below its URI; names have `/` in them.

    Every method raises:
        TimeoutError: The store did not respond within the deadline; the message has the operation and cause.
        PermissionError: The store rejects these keys.
        UsageError: The store rejects the request: another region, a wrong endpoint.
        DiskError: The local disk is full.
    """

    def __init__(self, uri: str, deadline_s: float) -> None:
        open_storage(uri)  # raises if it cannot be written to
        # Read-only storage times out within seconds, and calls are retried here: an abandoned call must not keep the
        # process from ending.
        objects = open_readable(uri)
        assert isinstance(objects, ObjectStorage)
        self._storage = objects
        self.deadline_s = deadline_s

    def __str__(self) -> str:
        return str(self._storage)

    def sizes(self) -> dict[str, int]:
        """Return every file's size in bytes by its name."""
        return self._insist("be listed", "", self._storage.sizes)

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file, None if there is none."""

        def act() -> bytes | None:
            with contextlib.suppress(FileNotFoundError):
                return self._storage.read(name)
            return None

        return self._insist("be read", name, act)

    def write(self, name: str, data: bytes) -> None:
        """Publish a small file."""
        self._insist("be written", name, lambda: self._storage.write(name, data))

    def upload(self, path: Path, name: str) -> None:
        """Publish a local file, completely or not at all.

        Raises:
            FileNotFoundError: The local file is gone.
        """
        size = path.stat().st_size

        def act() -> None:
            with open(path, "rb") as source, self._storage.writing(name) as target:
                shutil.copyfileobj(source, target, _COPY_BYTES)

        self._insist(f"take {size:,} bytes", name, act)

    def download(self, name: str, path: Path) -> None:
        """Write a file of the store to `path`, completely or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = name_temporary(path)
        try:
            with naming_disk(path, temporary=temporary):
                with open(temporary, "w+b") as file, holding(file.fileno()):
                    download(self._storage, name, file, sha256=None, size=None, deadline_s=self.deadline_s)
                temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def delete(self, names: list[str]) -> None:
        """Remove files in this order; missing ones are ignored."""
        if names:
            self._insist("be removed", names[0], lambda: self._storage.delete(names))

    def _insist(self, what: str, name: str, act: Callable[[], _T]) -> _T:
        """Return the result of `act`, retrying until it succeeds or the deadline passes."""
        where = f"{self}/{name}".rstrip("/")
        started, failures, cause = time.monotonic(), 0, "no answer"

        def left_s() -> float:  # evaluated each time: the deadline is shortened while closing
            return started + self.deadline_s - time.monotonic()

        while left_s() > 0:
            try:
                return _call_within(left_s, act, where)
            except (PermissionError, FileNotFoundError, DiskError):  # retrying would not help
                raise
            except OSError as err:
                cause = one_line(err)
                _log.debug("%s: %s", where, cause)
            failures += 1
            first, longest = _BACKOFF_S
            pause_s = min(longest, first * 2 ** min(failures - 1, 10)) * _jitter.uniform(0.5, 1)
            time.sleep(max(0.0, min(pause_s, left_s())))
        raise TimeoutError(f"{where} could not {what} within {self.deadline_s:g} s (last cause: {cause})")


def _call_within(left_s: Callable[[], float], act: Callable[[], _T], where: str) -> _T:
    """Run `act` in a daemon thread and return its result, because calls into pyarrow may hang beyond the deadline."""
    answers: queue.Queue[_T | BaseException] = queue.Queue(1)

    def run() -> None:
        try:
            with naming(where):
                answers.put(act())
        except BaseException as err:
            answers.put(err)

    threading.Thread(target=run, name="run-store", daemon=True).start()
    while left_s() > 0:
        with contextlib.suppress(queue.Empty):
            answer = answers.get(timeout=min(_POLL_S, max(0.0, left_s())))
            if isinstance(answer, BaseException):
                raise answer
            return answer
    raise TimeoutError("no answer")
