"""Reading the bytes of many sources: each by itself if the store allows it, else in whole passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from shards.sources.model import Source, Store

PASS_BYTES = 256 << 20
"""Bytes held in memory during one pass over a store that can only be read in order."""
CHUNK_BYTES = 32 << 20
"""Bytes of one chunk of such a store; several chunks are on their way to workers at once."""

Sources = Sequence[Source]


def load_groups(store: Store, groups: Iterable[Sources]) -> Iterator[list[bytes] | None]:
    """Yield for each group the bytes of its sources; None if the consumer can read them itself.

    A compressed archive is read once for every 256 MiB of groups.
    """
    if store.random_access:
        yield from (None for _ in groups)
        return
    for batch in _batches(groups):
        found = {source.name: data for source, data in store.read_in_order(s for group in batch for s in group)}
        for group in batch:
            yield [found.pop(source.name) for source in group]


def load_chunks(store: Store, sources: Sources, size: int) -> Iterator[tuple[Sources, list[bytes] | None]]:
    """Yield all sources in chunks of `size`; if the store requires it, in one pass in stored order."""
    if store.random_access:
        yield from ((sources[i : i + size], None) for i in range(0, len(sources), size))
        return
    chunk: list[tuple[Source, bytes]] = []
    held = 0
    for source, data in store.read_in_order(sources):
        chunk.append((source, data))
        held += len(data)
        if len(chunk) == size or held >= CHUNK_BYTES:
            yield [source for source, _ in chunk], [data for _, data in chunk]
            chunk, held = [], 0
    if chunk:
        yield [source for source, _ in chunk], [data for _, data in chunk]


def _batches(groups: Iterable[Sources]) -> Iterator[list[Sources]]:
    batch: list[Sources] = []
    held = 0
    for group in groups:
        size = sum(source.size for source in group)
        if batch and held + size > PASS_BYTES:
            yield batch
            batch, held = [], 0
        batch.append(group)
        held += size
    if batch:
        yield batch
