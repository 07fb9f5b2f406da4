"""A finished dataset that an older version decoded: whether new pictures may join it, and the note for the user."""

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
    """decoding: the decoding version to record after an update; unchanged if old pictures decode, or may decode,
    differently now. note: what the user should know, '' if nothing."""

    decoding: int
    note: str = ""


def check_age(base: Base, listed: SourceList, options: DecodeOptions, *, adds: bool) -> Age:
    """Return the age of a dataset's decoding before an update.

    Pictures that may decode differently are read again if they are still in the source.

    Args:
        listed: The source, old pictures included.
        adds: Whether there are new pictures.

    Raises:
        UsageError: Old pictures decode differently now, and new ones would join them.
    """
    manifest = base.manifest
    if manifest is None or manifest.decoding == VERSION:
        return Age(VERSION)
    sentence = describe_versions("the dataset", manifest.decoding)
    if manifest.decoding > VERSION:
        return Age(manifest.decoding, sentence)
    rows = _find_suspects(base, manifest.decoding)
    if not rows:
        return Age(VERSION, f"{sentence}. It holds no such picture, so old and new ones are decoded alike")
    again = _read_again(base, listed, options, rows)
    differing, unknown = again.differing, again.unknown
    if differing and adds:
        raise UsageError(
            f"{sentence}. {_count(differing)} differently now, so that old and new pictures would differ; nothing is "
            "damaged: pack all of them into a new folder"
        )
    if differing:
        advice = "nothing is damaged: to store all of them as they are decoded now, pack them into a new folder"
        return Age(manifest.decoding, f"{sentence}. {_count(differing)} differently now; {advice}")
    if unknown:
        some = f"{len(unknown):,} of its pictures (the first is {min(unknown)})"
        more = f"whether {some} are such is unknown without their files"
        advice = "New ones are decoded by this version; to have all of them decoded alike, pack them into a new folder"
        return Age(manifest.decoding, f"{sentence}; {more}. {advice}")
    if again.uncertain:
        return Age(manifest.decoding, f"{sentence}. {describe_unknown(again.uncertain)}")
    if not again.such:
        return Age(VERSION, f"{sentence}. It holds no such picture, so old and new ones are decoded alike")
    return Age(VERSION, f"{sentence}. All {again.such:,} pictures that might be such decode as when they were packed")


def compare_age(manifest: Manifest, storage: Storage, chosen: Selection) -> list[str]:
    """Return a note if the pictures of a finished dataset, packed again, would have other pixels than those in it."""
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
        f"{describe_versions('the dataset', manifest.decoding)}. {_count(differing)} differently now, and the "
        "dataset stays as it is; nothing is damaged: pack them into a new folder to store them as they are decoded "
        "now"
    ]


def _find_suspects(base: Base, version: int) -> list[int]:
    """Return the rows of old pictures that may decode differently.

    Not a gray PNG whose own bytes were packed: packing found nothing unusual in it.
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
    """What reading the suspects' files showed.

    differing: names of pictures that decode differently. unknown: names of pictures whose decoding is unknown.
    uncertain: number of further pictures that are unlikely to differ. such: number that might have differed but do not.
    """

    differing: list[str]
    unknown: list[str]
    uncertain: int
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
    uncertain = {name for name in left if name in rare - odd and not _has_full_size(base, before[name])}
    unknown = [name for name in left if name not in uncertain]
    return _Again(differing, unknown, len(uncertain), len(before) - len(rare & plain))


def _is_rare(base: Base, row: int, version: int) -> bool:
    kind = base.examined.facts["format"][row].as_py() if base.examined is not None else None
    return is_rare(base.sources[row].name, kind, version)


def _has_full_size(base: Base, row: int) -> bool:
    """Return whether the shards hold a picture in its full size; if it was re-encoded, it was unusual."""
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
        return f"1 picture ({names[0]}) decodes"
    return f"{len(names):,} pictures (the first is {min(names)}) decode"
