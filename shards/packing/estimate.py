"""Estimated bytes of pictures in their shards, before they are stored."""

from __future__ import annotations

from collections.abc import Sequence

from shards.errors import DecodeError
from shards.packing.encode import StoreOptions, refuse_undecodable, store_picture
from shards.sources.model import Source, Store

_SAMPLE = 32


def estimate_sizes(store: Store, sources: Sequence[Source], options: StoreOptions) -> list[int]:
    """Return the bytes of each picture; if pictures are shrunk, scaled by the ratio of 32 evenly spread ones.

    Without the ratio, a folder of large photographs would become tens of thousands of tiny shards. The same pictures
    give the same estimate, and so the same shards.

    Raises:
        ShardError: One of the 32 cannot be decoded.
    """
    sizes = [source.size for source in sources]
    if options.max_side is None or not sources:
        return sizes
    sample = [sources[row] for row in range(0, len(sources), -(-len(sources) // _SAMPLE))]
    stored = sum(_measure(source, data, options) for source, data in store.read_in_order(sample))
    ratio = stored / max(1, sum(source.size for source in sample))
    return [max(1, int(size * ratio)) for size in sizes]


def _measure(source: Source, data: bytes, options: StoreOptions) -> int:
    try:
        return len(store_picture(data, options).data)
    except DecodeError as err:
        raise refuse_undecodable(source, err) from err
