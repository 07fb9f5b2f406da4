"""A dataset's files as local files: read in place, or fetched into a cache that a node's processes share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from shards.storage.cache import CacheCounts, Lease, ShardCache, Wanted
from shards.storage.storage import FolderStorage, open_readable

CACHE_VARIABLE = "SHARDLINE_CACHE"


def default_cache() -> Path:
    """Return the folder of SHARDLINE_CACHE, or shardline/shards in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(CACHE_VARIABLE) or Path(home) / "shardline" / "shards")


@dataclass(frozen=True)
class CacheOptions:
    """How files of a remote dataset are cached on this machine; a local dataset is read in place.

    folder: shared by all processes of a node, on a disk of its own.
    limit_bytes: the most that the folder may hold.
    deadline_s: seconds within which a file must arrive, retries included.
    sharers: processes that read through this cache at the same time; each looks ahead by its share of half the cache.
    """

    folder: Path = field(default_factory=default_cache)
    limit_bytes: int = 20 << 30
    deadline_s: float = 600.0
    sharers: int = 1


class Access(Protocol):
    """Provides a dataset's files as paths."""

    def lease(self, wanted: Wanted) -> Lease:
        """Return the file once it is here; it stays until the lease is closed.

        Raises:
            ShardError: It is missing, or differs from the dataset's tables.
            OSError: It did not arrive within the deadline, or the disk is full.
        """
        ...

    def prefetch(self, wanted: Sequence[Wanted]) -> None:
        """Fetch these files in the background, in order; earlier requests that have not begun are dropped."""
        ...

    def counts(self) -> CacheCounts: ...

    def close(self) -> None: ...


class FolderAccess:
    """Files of a folder on this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def lease(self, wanted: Wanted) -> Lease:
        return Lease(self._root / wanted.name)

    def prefetch(self, wanted: Sequence[Wanted]) -> None:
        pass

    def counts(self) -> CacheCounts:
        return CacheCounts()

    def close(self) -> None:
        pass


def open_access(location: str, options: CacheOptions) -> Access:
    """Return access to the files of the dataset at `location`, a path or URI."""
    storage = open_readable(location)
    if isinstance(storage, FolderStorage):
        return FolderAccess(storage.root)
    return ShardCache(storage, options.folder, limit_bytes=options.limit_bytes, deadline_s=options.deadline_s)
