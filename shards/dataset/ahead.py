"""Reading ahead of a stream of batches: shards are fetched before they are needed and released afterwards."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator

from shards.dataset.read import SampleReader
from shards.order.plan import Refs

_SAMPLES = 1 << 20
"""Limit of samples to look ahead: their positions take 24 bytes of memory each."""


def look_ahead(batches: Iterable[Refs], reader: SampleReader, *, kept: int) -> Iterator[Refs]:
    """Yield `batches`; announce to the reader the shards that they and later batches need, in order.

    It looks ahead until the shards fill the reader's `ahead_bytes`. Shards of the last `kept` batches, which may still
    be in use, are not released. For a reader of local shards it only passes the batches on.
    """
    if not reader.ahead_bytes:
        yield from batches
        return
    horizon = _Horizon(reader)
    coming = iter(batches)
    behind: deque[Refs] = deque()
    while True:
        changed = horizon.extend(coming)
        if not horizon.batches:
            return
        if changed:
            reader.announce(horizon.shards)
        refs = horizon.take()
        yield refs
        behind.append(refs)
        if len(behind) > kept:
            horizon.forget(behind.popleft())


class _Horizon:
    """The next batches, and for each shard how many of them, or of those just read, need it, in order of first need."""

    def __init__(self, reader: SampleReader) -> None:
        self._reader = reader
        self._uses: Counter[int] = Counter()  # keeps shards in order of first need
        self._bytes = 0
        self._samples = 0
        self._changed = False
        self.batches: deque[Refs] = deque()

    @property
    def shards(self) -> list[int]:
        return list(self._uses)

    def extend(self, coming: Iterator[Refs]) -> bool:
        """Take batches until their shards fill the bytes to fetch ahead; return whether the set of shards changed."""
        while not self.batches or (self._bytes < self._reader.ahead_bytes and self._samples < _SAMPLES):
            refs = next(coming, None)
            if refs is None:
                break
            self.batches.append(refs)
            self._samples += len(refs)
            for shard in dict.fromkeys(refs.shards.tolist()):
                self._add(shard)
        changed, self._changed = self._changed, False
        return changed

    def take(self) -> Refs:
        """Return the next batch and remove it from the batches to come."""
        refs = self.batches.popleft()
        self._samples -= len(refs)
        return refs

    def forget(self, refs: Refs) -> None:
        """Release a batch that has been read."""
        for shard in dict.fromkeys(refs.shards.tolist()):
            self._uses[shard] -= 1
            if not self._uses[shard]:
                del self._uses[shard]
                self._bytes -= self._reader.shard_bytes(shard)
                self._changed = True

    def _add(self, shard: int) -> None:
        if shard not in self._uses:
            self._bytes += self._reader.shard_bytes(shard)
            self._changed = True
        self._uses[shard] += 1
