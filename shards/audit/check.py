"""Is every picture readable? Each is decoded once before anything is packed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import xxhash

from shards.decode import DecodeOptions, Picture, inspect
from shards.errors import DecodeError, ShardError
from shards.sources.folder import Source

Progress = Callable[[str, int, int, int], None]
"""Called as progress(stage, pictures done, pictures in all, bytes of this picture)."""


@dataclass(frozen=True)
class Checked:
    """A source whose picture decoded, with the digest of its bytes."""

    source: Source
    picture: Picture
    length: int
    bytes_xxh3: str


@dataclass(frozen=True)
class Rejected:
    """A source whose picture did not decode, and why."""

    name: str
    reason: str


def check_sources(
    sources: Sequence[Source], options: DecodeOptions, workers: int, progress: Progress
) -> tuple[list[Checked], list[Rejected]]:
    """Decode every picture once; return those that decode, and those that do not, in the given order."""

    def check(source: Source) -> Checked | Rejected:
        data = source.path.read_bytes()
        try:
            picture = inspect(data, options)
        except DecodeError as err:
            return Rejected(source.name, str(err))
        return Checked(source, picture, len(data), xxhash.xxh3_128_hexdigest(data))

    checked: list[Checked] = []
    rejected: list[Rejected] = []
    pool = ThreadPoolExecutor(workers)
    try:
        for done, result in enumerate(pool.map(check, sources), start=1):
            if isinstance(result, Checked):
                checked.append(result)
            else:
                rejected.append(result)
            progress("check", done, len(sources), result.length if isinstance(result, Checked) else 0)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C must not wait for a million queued pictures
    return checked, rejected


def refuse_rejects(rejected: list[Rejected], total: int, max_rate: float) -> None:
    """Raise a ShardError when more than `max_rate` of all pictures were rejected."""
    if len(rejected) > max_rate * total:
        first = rejected[0]
        raise ShardError(
            f"{len(rejected):,} of {total:,} pictures cannot be read, over the limit of {max_rate:.1%}; "
            f"the first is {first.name}: {first.reason}. Repair or remove them, or raise --max-reject-rate"
        )


def refuse_unknown_range(checked: list[Checked], options: DecodeOptions) -> None:
    """Raise a ShardError when deep gray leaves its top bit unused: a 12-bit X-ray would come out black."""
    peak = max((item.picture.peak for item in checked), default=0.0)
    if options.gray_range is None and 0 < peak < 32768:
        bits = max(1, int(peak).bit_length())
        raise ShardError(
            f"the deep gray pictures use values up to {peak:g} of 65535, so they would come out dark; "
            f"say which values are black and white, for example --range 0,{2**bits - 1} for {bits} bits"
        )
