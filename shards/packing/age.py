"""A finished dataset whose pictures an older decoding has read: may new ones join it, and what is said."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from shards.dataset.manifest import AUDIT_TABLE, Manifest
from shards.errors import DecodeError, UsageError
from shards.packing.select import Selection
from shards.packing.update import Base
from shards.pictures.decode import DecodeOptions, inspect
from shards.pictures.decoding import VERSION, describe_versions, is_changed, may_be_changed
from shards.sources.model import SourceList
from shards.storage.storage import Storage


@dataclass(frozen=True)
class Age:
    """decoding: the version of the dataset once new pictures have joined, that of its oldest ones where they differ.
    note: what the user should know, '' where there is nothing."""

    decoding: int
    note: str = ""


def check_age(base: Base, listed: SourceList, options: DecodeOptions, *, adds: bool) -> Age:
    """Return how old the decoding of a dataset is before it is updated.

    Pictures that may come out otherwise are read again, where they are still in the source.

    Args:
        listed: The source, old pictures included.
        adds: Whether there are new pictures.

    Raises:
        UsageError: Old ones come out otherwise by now, and new ones would join them.
    """
    manifest = base.manifest
    if manifest is None or manifest.decoding == VERSION:
        return Age(VERSION)
    said = describe_versions("the dataset", manifest.decoding)
    if manifest.decoding > VERSION:
        return Age(manifest.decoding, said)
    rows = _find_suspects(base, manifest.decoding)
    if not rows:
        return Age(VERSION, f"{said}. It holds no such picture, so old and new ones are read alike")
    differing, unknown = _read_again(base, listed, options, rows)
    if differing and adds:
        raise UsageError(
            f"{said}. {_count(differing)} otherwise by now, so that old and new pictures would differ; "
            "nothing is damaged: pack all of them into a new folder"
        )
    if differing:
        advice = "nothing is damaged: to have all of them as they are served, pack them into a new folder"
        return Age(manifest.decoding, f"{said}. {_count(differing)} otherwise by now; {advice}")
    if unknown:
        some = f"{len(unknown):,} of its pictures (the first is {min(unknown)})"
        more = f"whether {some} are such, only their files would tell"
        advice = "New ones are read as they are served; to have all of them read alike, pack them into a new folder"
        return Age(manifest.decoding, f"{said}; {more}. {advice}")
    return Age(VERSION, f"{said}. All {len(rows):,} pictures that might be such come out as they were packed")


def compare_age(manifest: Manifest, storage: Storage, chosen: Selection) -> list[str]:
    """Return a note where the pictures of a finished dataset, packed again, would have other pixels than it holds."""
    if manifest.decoding >= VERSION or chosen.pixels_xxh3 is None:
        return []
    try:
        table = pq.read_table(io.BytesIO(storage.read(AUDIT_TABLE)), columns=["source", "pixels_xxh3"])
    except (OSError, pa.ArrowException):
        return []
    before = dict(zip(table["source"].to_pylist(), table["pixels_xxh3"].to_pylist(), strict=True))
    now = zip(chosen.sources, chosen.pixels_xxh3, strict=True)
    differing = [source.name for source, pixels in now if before.get(source.name, pixels) != pixels]
    if not differing:
        return []
    return [
        f"{describe_versions('the dataset', manifest.decoding)}. {_count(differing)} otherwise by now, and the dataset "
        "stays as it is; nothing is damaged: pack them into a new folder to have them as they are served"
    ]


def _find_suspects(base: Base, version: int) -> list[int]:
    """Return the rows of old pictures that may come out otherwise."""
    names = [source.name for source in base.sources]
    kinds: Sequence[str | None] = [None] * len(names)
    modes: Sequence[str | None] = kinds
    if base.examined is not None:
        kinds, modes = (base.examined.facts[column].to_pylist() for column in ("format", "mode"))
    facts = enumerate(zip(names, kinds, modes, strict=True))
    return [row for row, (name, kind, mode) in facts if may_be_changed(name, kind, mode, version)]


def _read_again(
    base: Base, listed: SourceList, options: DecodeOptions, rows: Sequence[int]
) -> tuple[list[str], list[str]]:
    """Return the names of old pictures that come out otherwise, and of those of which nobody can say."""
    assert base.manifest is not None
    before = {base.sources[row].name: row for row in rows}
    there = [source for source in listed.sources if source.name in before]
    differing, settled = [], set()
    for source, data in listed.store.read_in_order(there):
        if not is_changed(data, base.manifest.decoding):
            settled.add(source.name)
        elif base.examined is not None:
            settled.add(source.name)
            if _hash(data, options) != base.examined.facts["pixels_xxh3"][before[source.name]].as_py():
                differing.append(source.name)
    return differing, [name for name in before if name not in settled]


def _hash(data: bytes, options: DecodeOptions) -> str:
    try:
        return inspect(data, options).pixels_xxh3
    except DecodeError:
        return "refused"


def _count(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"1 picture ({names[0]}) comes out"
    return f"{len(names):,} pictures (the first is {min(names)}) come out"
