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
from shards.pictures.decoding import (
    VERSION,
    describe_unknown,
    describe_versions,
    is_changed,
    is_rare,
    may_be_changed,
)
from shards.pictures.shrink import fits
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
    again = _read_again(base, listed, options, rows)
    differing, unknown = again.differing, again.unknown
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
    if again.untold:
        return Age(manifest.decoding, f"{said}. {describe_unknown(again.untold)}")
    if not again.such:
        return Age(VERSION, f"{said}. It holds no such picture, so old and new ones are read alike")
    return Age(VERSION, f"{said}. All {again.such:,} pictures that might be such come out as they were packed")


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
    """Return the rows of old pictures that may come out otherwise.

    A gray PNG whose own bytes a pack has kept is none of them: it saw nothing odd in them.
    """
    names = [source.name for source in base.sources]
    kinds: Sequence[str | None] = [None] * len(names)
    modes: Sequence[str | None] = kinds
    if base.examined is not None:
        kinds, modes = (base.examined.facts[column].to_pylist() for column in ("format", "mode"))
    facts = enumerate(zip(names, kinds, modes, strict=True))
    may = [(row, name, kind) for row, (name, kind, mode) in facts if may_be_changed(name, kind, mode, version)]
    kept = base.examined is not None
    return [row for row, name, kind in may if not (kept and row not in base.made and is_rare(name, kind, version))]


@dataclass(frozen=True)
class _Again:
    """What the files of suspects said.

    differing: names of those that come out otherwise. unknown: names of those of which nobody can say.
    untold: how many more there are of those that hardly are such. such: how many might have been and are not.
    """

    differing: list[str]
    unknown: list[str]
    untold: int
    such: int


def _read_again(base: Base, listed: SourceList, options: DecodeOptions, rows: Sequence[int]) -> _Again:
    assert base.manifest is not None
    version = base.manifest.decoding
    before = {base.sources[row].name: row for row in rows}
    rare = {name for name, row in before.items() if _is_rare(base, row, version)}
    there = [source for source in listed.sources if source.name in before]
    differing, settled, plain, odd = [], set(), set(), set()
    for source, data in listed.store.read_in_order(there):
        if not is_changed(data, version):
            plain.add(source.name)
        elif base.examined is None:
            odd.add(source.name)
        else:
            settled.add(source.name)
            if _hash(data, options) != base.examined.facts["pixels_xxh3"][before[source.name]].as_py():
                differing.append(source.name)
    left = [name for name in before if name not in settled and name not in plain]
    untold = {name for name in left if name in rare - odd and not _has_full_size(base, before[name])}
    unknown = [name for name in left if name not in untold]
    return _Again(differing, unknown, len(untold), len(before) - len(rare & plain))


def _is_rare(base: Base, row: int, version: int) -> bool:
    kind = base.examined.facts["format"][row].as_py() if base.examined is not None else None
    return is_rare(base.sources[row].name, kind, version)


def _has_full_size(base: Base, row: int) -> bool:
    """Return whether the shards hold a picture in its full size; where it is encoded anew, there was something odd."""
    assert base.manifest is not None
    if base.examined is None:
        return False
    width, height = (base.examined.facts[column][row].as_py() for column in ("width", "height"))
    return fits(width, height, base.manifest.packing.max_side)


def _hash(data: bytes, options: DecodeOptions) -> str:
    try:
        return inspect(data, options).pixels_xxh3
    except DecodeError:
        return "refused"


def _count(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"1 picture ({names[0]}) comes out"
    return f"{len(names):,} pictures (the first is {min(names)}) come out"
