"""Downloads of single files, complete and checked; interruptions are resumed until a deadline for the whole file."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from typing import BinaryIO, TypeVar

from shards.errors import ShardError
from shards.storage.readable import ObjectChangedError, Readable, one_line

_CHUNK_BYTES = 8 << 20  # one request of an object store: as fast as one long request, as measured
_LEAST_BYTES = 256 << 10
_STALL_S = 30.0  # a chunk that takes longer is requested again, at a smaller size
_BACKOFF_S = (0.1, 5.0)  # first and longest
_POLL_S = 0.1  # how soon a cancelled download and an abandoned thread end

_jitter = random.Random()  # separate: training seeds the module's
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def download(
    readable: Readable,
    name: str,
    file: BinaryIO,
    *,
    sha256: str | None,
    size: int | None,
    deadline_s: float,
    until: float | None = None,
    cancelled: threading.Event | None = None,
) -> int:
    """Download a file to `file`, which may already hold its beginning; return the number of bytes received.

    Args:
        sha256: Digest that the content must have; None if unknown.
        size: Size in bytes that it must have, if known.
        deadline_s: Seconds for the whole file.
        until: End of these seconds on the monotonic clock; by default counted from now.
        cancelled: Set by another thread to end the download.

    Raises:
        ShardError: The content differs from `sha256` and `size`, also after a second download.
        TimeoutError: The file did not arrive in time.
        InterruptedError: Cancelled.
        OSError: It is missing, access is denied, or `file` cannot be written.
    """
    task = _Download(readable, name, file, size, deadline_s, until, cancelled or threading.Event())
    task.hash_beginning()
    digest = task.run()
    if digest is None or sha256 not in (None, digest):
        _log.warning("%s: its content differs from the dataset's tables; it is fetched once more", task.where)
        task.start_over()
        digest = task.run()
    if digest is None:
        raise ShardError(f"{task.where} changed twice while it was being read; wait until it is no longer written to")
    if sha256 not in (None, digest):
        raise ShardError(
            f"{task.where}: sha256 is {digest}, but the dataset's tables have {sha256}, also after a second "
            "download; the file changed after packing. Pack again, or restore it from a backup"
        )
    return task.received


def fetch(readable: Readable, name: str, *, deadline_s: float, sha256: str | None = None) -> bytes:
    """Return the content of a file that fits in memory; raises like `download`."""
    file = io.BytesIO()
    download(readable, name, file, sha256=sha256, size=None, deadline_s=deadline_s)
    return file.getvalue()


def measure(
    readable: Readable,
    name: str,
    *,
    deadline_s: float,
    until: float | None = None,
    cancelled: threading.Event | None = None,
) -> int:
    """Return a file's size in bytes; arguments and errors as for `download`."""
    task = _Download(readable, name, io.BytesIO(), None, deadline_s, until, cancelled or threading.Event())
    return task.measure()


class _Download:
    """A download in progress: `offset` bytes are written and hashed."""

    def __init__(
        self,
        readable: Readable,
        name: str,
        file: BinaryIO,
        size: int | None,
        deadline_s: float,
        until: float | None,
        cancelled: threading.Event,
    ) -> None:
        self.where = f"{readable}/{name}"
        self.received = 0
        self._readable, self._name, self._file, self._size = readable, name, file, size
        self._deadline_s, self._until = deadline_s, time.monotonic() + deadline_s if until is None else until
        self._cancelled = cancelled
        self._offset, self._hash = 0, hashlib.sha256()
        self._cause = ""

    def hash_beginning(self) -> None:
        """Use the file's present content as the beginning; the final digest shows whether it was."""
        self._file.seek(0)
        while data := self._file.read(_CHUNK_BYTES):
            self._hash.update(data)
            self._offset += len(data)
        if self._size is not None and self._offset > self._size:
            self.start_over()

    def start_over(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._offset, self._hash = 0, hashlib.sha256()

    def run(self) -> str | None:
        """Return the sha256 of the whole file once it is written, None if the remote file changed meanwhile."""
        try:
            self._insist(self._follow)
        except ObjectChangedError:
            return None
        return self._hash.hexdigest()

    def measure(self) -> int:
        """Return the size that the store reports."""
        return self._insist(self._begin)

    def _insist(self, act: Callable[[_Source], _T]) -> _T:
        """Return the result of `act` on a connection; reconnect until it succeeds or time is up."""
        failures, chunk = 0, _CHUNK_BYTES
        while True:
            before = self._offset
            source = _Source(self._readable, self._name, self._offset, chunk)
            try:
                return act(source)
            except _Failed as failed:
                self._cause = one_line(failed.cause).removeprefix(f"{self.where}: ")
            finally:
                source.stop()
            failures = 1 if self._offset > before else failures + 1
            chunk = max(_LEAST_BYTES, chunk // 2)  # may get through where a larger one was cut off each time
            _log.debug("%s at byte %s: %s", self.where, f"{self._offset:,}", self._cause)
            self._back_off(failures)

    def _begin(self, source: _Source) -> int:
        """Return the file's size, which each connection sends first."""
        size = self._next(source)
        assert isinstance(size, int)
        if self._size not in (None, size):
            raise ShardError(
                f"{self.where} has {size:,} bytes, but the dataset's tables have {self._size:,}; the file changed "
                "after packing. Pack again, or restore it from a backup"
            )
        return size

    def _follow(self, source: _Source) -> None:
        """Write what a connection sends, up to the end of the file."""
        size = self._begin(source)
        if self._offset > size:
            raise ObjectChangedError(self.where)
        while self._offset < size:
            data = self._next(source)
            assert isinstance(data, bytes)
            self._write(data)
        self._file.flush()

    def _next(self, source: _Source) -> int | bytes:
        stalled = time.monotonic() + _STALL_S
        while True:
            self._check()
            if time.monotonic() > stalled:
                raise _Failed(TimeoutError(f"no answer within {_STALL_S:.0f} s"))
            with contextlib.suppress(queue.Empty):
                return source.take(_POLL_S)

    def _check(self) -> None:
        """Raise if time is up or the download was cancelled."""
        if self._cancelled.is_set():
            raise InterruptedError(f"{self.where}: the download was cancelled")
        if time.monotonic() > self._until:
            of = "" if self._size is None else f" of {self._size:,}"
            raise TimeoutError(
                f"{self.where} did not come within {round(self._deadline_s, 1):g} s ({self._offset:,}{of} bytes "
                f"arrived; last cause: {self._cause or 'the transfer is too slow'}); "
                "check that the store is up, or raise storage.deadline_s"
            )

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:  # a raw file may write fewer bytes than given
            left = left[self._file.write(left) :]
        self._hash.update(data)
        self._offset += len(data)
        self.received += len(data)

    def _back_off(self, failures: int) -> None:
        first, longest = _BACKOFF_S
        pause_s = min(longest, first * 2 ** min(failures - 1, 10)) * _jitter.uniform(0.5, 1)
        self._cancelled.wait(max(0.0, min(pause_s, self._until - time.monotonic())))
        self._check()


class _Failed(Exception):  # noqa: N818, never leaves this module
    """A connection that broke; the next one may still succeed."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Source:
    """One connection, read ahead by a daemon thread.

    Calls into pyarrow and httpx may hang longer than a deadline; a daemon thread can be abandoned and ends with the
    process.
    """

    def __init__(self, readable: Readable, name: str, offset: int, chunk: int) -> None:
        self._readable, self._name, self._offset, self._chunk = readable, name, offset, chunk
        self._queue: queue.Queue[int | bytes | Exception] = queue.Queue(maxsize=1)
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name=f"shards-read-{name}", daemon=True).start()

    def take(self, timeout_s: float) -> int | bytes:
        """Return the file's size first, then its content piece by piece.

        Raises:
            queue.Empty: Nothing arrived in time.
            _Failed: The connection broke.
            OSError: An error that reconnecting cannot cure.
        """
        item = self._queue.get(timeout=timeout_s)
        if not isinstance(item, Exception):
            return item
        if isinstance(item, OSError) and not isinstance(item, _HOPELESS):
            raise _Failed(item) from item
        raise item

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        try:
            with contextlib.closing(self._readable.open(self._name)) as file:
                self._put(file.size)
                while self._offset < file.size and not self._stopped.is_set():
                    data = file.read_at(self._offset, min(self._chunk, file.size - self._offset))
                    if not data:
                        raise ConnectionError("the store sent nothing")
                    self._offset += len(data)
                    self._put(data)
        except Exception as err:
            self._put(err)

    def _put(self, item: int | bytes | Exception) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=_POLL_S)
                return


_HOPELESS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ObjectChangedError)
