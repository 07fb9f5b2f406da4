"""A dataset's files on a local disk: fetched once per node, checked, and kept within a size limit."""

from __future__ import annotations

import atexit
import contextlib
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from shards.errors import ShardError
from shards.storage.download import download, measure
from shards.storage.folder import CacheFolder, Entry, NoRoomError, is_full, touch
from shards.storage.readable import Readable

_POLL_S = (0.01, 0.2)  # first and longest pause between checks for a file that another process is fetching
_ENDING_S = 5.0
_CROWDED_S = 2.0  # how long everything must be in use before a needed file is refused

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """A file as the dataset's tables describe it. size: in bytes, None if no table has it."""

    name: str
    sha256: str
    size: int | None

    @property
    def key(self) -> str:
        """Return its name in a cache, the same for every dataset that contains this file.

        Raises:
            ShardError: `sha256` is not a digest.
        """
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ShardError(
                f"{self.name}: '{self.sha256}' is not a sha256; the dataset's tables are damaged. Pack again"
            )
        suffix = PurePosixPath(self.name).suffix
        return self.sha256 + (suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,16}", suffix) else "")


@dataclass(frozen=True)
class CacheCounts:
    """Counts of one process's cache. hits: leases whose file was there; wait_s: total time of all leases; refetched:
    downloads of files that this process had before, a sign that the limit is too small."""

    hits: int = 0
    misses: int = 0
    bytes_downloaded: int = 0
    wait_s: float = 0.0
    refetched: int = 0


class Lease(AbstractContextManager["Lease"]):
    """A file that is not evicted until the lease is closed."""

    def __init__(self, path: Path, lock: BinaryIO | None = None) -> None:
        self.path = path
        self._lock = lock

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            touch(lock)
            lock.close()


class ShardCache(AbstractContextManager["ShardCache"]):
    """Files of `readable` in a folder that all processes of this machine may share; thread-safe.

    deadline_s: seconds within which a file must arrive. threads: how many files are prefetched at a time.
    """

    def __init__(
        self, readable: Readable, folder: Path, *, limit_bytes: int, deadline_s: float, threads: int = 4
    ) -> None:
        self._readable, self._deadline_s = readable, deadline_s
        self._folder = CacheFolder(folder, limit_bytes)
        self._closed = threading.Event()
        self._wake = threading.Condition()  # guards the attributes below
        self._queue: deque[Wanted] = deque()
        self._counts = CacheCounts()
        self._had: set[str] = set()
        self._num_threads = threads
        self._threads: list[threading.Thread] = []
        atexit.register(self.close)  # daemon threads would be killed and leave partial files

    def lease(self, wanted: Wanted) -> Lease:
        """Return the file once it is here and checked.

        Raises:
            ShardError: Its content differs from the dataset's tables.
            FileNotFoundError: The store has no such file.
            TimeoutError: It did not arrive within the deadline.
            UsageError: There is no room beside the files in use (NoRoomError).
            InterruptedError: The cache was closed.
            OSError: Access was denied, or the disk is full.
        """
        start = time.monotonic()
        with self._wake, contextlib.suppress(ValueError):
            self._queue.remove(wanted)
        file = self._folder.hold(wanted.key, wanted.size)
        hit = file is not None
        try:
            if file is None:
                file = self._obtain(wanted, start + self._deadline_s)
        finally:
            self._count(hits=int(hit), misses=int(not hit), wait_s=time.monotonic() - start)
        with self._wake:
            self._had.add(wanted.key)
        return Lease(self._folder.root / wanted.key, file)

    def prefetch(self, wanted: Sequence[Wanted]) -> None:
        """Fetch these files in the background, in order; earlier requests that have not begun are dropped.

        Nothing is raised here: a failed file is fetched again, and the error raised, when it is leased.
        """
        with self._wake:
            self._queue = deque(wanted)
            missing = min(self._num_threads, len(wanted)) - len(self._threads)
            if not self._closed.is_set():
                self._threads += [self._start_thread() for _ in range(missing)]
            self._wake.notify_all()

    def counts(self) -> CacheCounts:
        with self._wake:
            return self._counts

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads and cancel their downloads; leases stay valid."""
        with self._wake:
            self._closed.set()
            self._queue.clear()
            self._wake.notify_all()
        for thread in self._threads:
            thread.join(_ENDING_S)
        atexit.unregister(self.close)

    def _start_thread(self) -> threading.Thread:
        thread = threading.Thread(target=self._work, name="shards-prefetch", daemon=True)
        thread.start()
        return thread

    def _work(self) -> None:
        while not self._closed.is_set():
            with self._wake:
                self._wake.wait_for(lambda: self._queue or self._closed.is_set())
                wanted = self._queue.popleft() if self._queue else None
            try:
                if wanted is not None:
                    self._bring(wanted)
            except Exception as err:
                _log.debug("%s/%s was not prefetched: %s", self._readable, wanted and wanted.name, err)

    def _bring(self, wanted: Wanted) -> None:
        """Prefetch a file, unless it is here, is being fetched, or has no room."""
        file = self._folder.hold(wanted.key, wanted.size, awaited=True)
        if file is None:
            until = time.monotonic() + self._deadline_s
            entry = self._entry(wanted, until)
            file = self._folder.claim(entry, needed=False)
            if file is not None:
                self._fill(wanted, entry, file, until, awaited=True)
        if file is not None:
            file.close()

    def _obtain(self, wanted: Wanted, until: float) -> BinaryIO:
        """Return a missing file, locked: fetched by this thread, or by whichever process has begun it."""
        entry = self._entry(wanted, until)
        pause_s, longest_s = _POLL_S
        crowded = time.monotonic() + _CROWDED_S
        while True:
            try:
                file = self._folder.claim(entry, needed=True)
            except NoRoomError:
                # Files that are in use only for a moment, just prefetched or just checked, become free by themselves.
                if entry.size > self._folder.limit_bytes or time.monotonic() > crowded:
                    raise
                file = None
            if file is not None:
                self._fill(wanted, entry, file, until, awaited=False)
                return file
            file = self._folder.hold(wanted.key, wanted.size)
            if file is not None:
                return file
            if time.monotonic() > until:
                raise TimeoutError(
                    f"{self._readable}/{wanted.name} did not come within {round(self._deadline_s, 1):g} s: "
                    f"other downloads into {self._folder.root} had not ended by then; "
                    "check that the store is up, or raise storage.deadline_s"
                )
            if self._closed.wait(pause_s):
                raise InterruptedError(f"{self._readable}/{wanted.name}: the cache was closed")
            pause_s = min(longest_s, pause_s * 1.5)

    def _entry(self, wanted: Wanted, until: float) -> Entry:
        size = wanted.size
        if size is None:
            size = measure(
                self._readable, wanted.name, deadline_s=self._deadline_s, until=until, cancelled=self._closed
            )
        return Entry(wanted.key, size)

    def _fill(self, wanted: Wanted, entry: Entry, file: BinaryIO, until: float, *, awaited: bool) -> None:
        """Download into a claimed file and publish it; on any error, no partial file is left."""
        with self._discarding(entry, file):
            received = download(
                self._readable,
                wanted.name,
                file,
                sha256=wanted.sha256,
                size=entry.size,
                deadline_s=self._deadline_s,
                until=until,
                cancelled=self._closed,
            )
            # Before others see the file, so that its readers find its bytes counted.
            with self._wake:
                again = wanted.key in self._had
                self._had.add(wanted.key)
            self._count(bytes_downloaded=received, refetched=int(again))
            self._folder.publish(entry, file, awaited=awaited)

    @contextlib.contextmanager
    def _discarding(self, entry: Entry, file: BinaryIO) -> Iterator[None]:
        try:
            yield
        except BaseException as err:
            self._folder.discard(entry, file)
            if isinstance(err, OSError) and is_full(err):
                raise self._folder.full_disk(err, entry) from err
            raise

    def _count(self, **more: float) -> None:
        with self._wake:
            now = {name: getattr(self._counts, name) + number for name, number in more.items()}
            self._counts = replace(self._counts, **now)
