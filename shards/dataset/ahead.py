"""What a stream of batches will read soon: shards are fetched before they are needed, and let go of afterwards."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator

from shards.dataset.read import SampleReader
from shards.order.plan import Refs

_SAMPLES = 1 << 20
"""To look ahead at most: their places are held in memory, 24 bytes each."""


def look_ahead(batches: Iterable[Refs], reader: SampleReader, *, kept: int) -> Iterator[Refs]:
    """Yield `batches`, telling the reader of the shards that they and the ones after them need, in order.

    It looks as far ahead as the shards fill the reader's `ahead_bytes`; shards of the last `kept` batches, which may
    still be read, are not let go of. For a reader of local shards it does nothing.
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
    """The batches to come, and how many of those to come or just read need each shard, in the order of first need."""

    def __init__(self, reader: SampleReader) -> None:
        self._reader = reader
        self._uses: Counter[int] = Counter()  # keeps the order in which shards came
        self._bytes = 0
        self._samples = 0
        self._changed = False
        self.batches: deque[Refs] = deque()

    @property
    def shards(self) -> list[int]:
        return list(self._uses)

    def extend(self, coming: Iterator[Refs]) -> bool:
        """Take batches until their shards fill what may be fetched ahead; return whether the shards changed."""
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
        """Return the next batch, which is looked ahead to no longer."""
        refs = self.batches.popleft()
        self._samples -= len(refs)
        return refs

    def forget(self, refs: Refs) -> None:
        """Take note that a batch was read."""
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
