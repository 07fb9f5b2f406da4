"""Which pictures of a dataset an older version decoded differently, found without the original files."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shards.dataset.dataset import Dataset
from shards.dataset.manifest import AUDIT_TABLE, INDEXED
from shards.dataset.read import SampleReader
from shards.pictures.decoding import (
    HEAD,
    VERSION,
    describe_unknown,
    describe_versions,
    is_changed,
    is_plain_png,
    is_rare,
    may_be_changed,
)
from shards.pictures.shrink import fits
from shards.storage.storage import FolderStorage, open_readable


@dataclass(frozen=True, slots=True)
class Affected:
    """Pictures that may decode differently than with the version that made the dataset.

    count: their number. first: the first by name. stored: whether the shards contain the old decoder's result (packed
    dataset) or the files themselves (indexed tars). uncertain: further pictures that are unlikely to differ, but
    nothing in the dataset excludes it.
    """

    count: int
    first: str
    stored: bool
    uncertain: int = 0


@dataclass(frozen=True)
class Suspects:
    """Names of pictures that may decode differently (likely), and of those that probably do not but may (uncertain)."""

    likely: frozenset[str] = frozenset()
    uncertain: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Picture:
    """What is known of a sample's file; without an audit, the hash is '' and width and height are 0."""

    name: str
    kind: str | None
    mode: str | None
    bytes_xxh3: str = ""
    width: int = 0
    height: int = 0


def find_affected(dataset: Dataset, version: int | None = None) -> Affected:
    """Return the pictures that may decode differently than with `version`, None for the dataset's own."""
    return count_suspects(dataset, find_suspects(dataset, version))


def count_suspects(dataset: Dataset, found: Suspects) -> Affected:
    """Return the counts of `found`."""
    return Affected(len(found.likely), min(found.likely, default=""), not is_indexed(dataset), len(found.uncertain))


def is_indexed(dataset: Dataset) -> bool:
    """Return whether the dataset indexes foreign tars, which contain the original files."""
    return dataset.manifest.packing.plan.startswith(INDEXED)


def find_suspects(dataset: Dataset, version: int | None = None) -> Suspects:
    """Return the pictures that may decode differently than with `version`, None for the dataset's own.

    Format and mode come from the audit, if the dataset is in a folder and was audited; otherwise names decide. Gray
    PNGs are examined further, because few differ: where packing copied the file's bytes, nothing differs, and tars in a
    folder are read.
    """
    version = dataset.manifest.decoding if version is None else version
    if version >= VERSION:
        return Suspects()
    pictures = [each for each in _list_pictures(dataset) if may_be_changed(each.name, each.kind, each.mode, version)]
    rare = [each for each in pictures if is_rare(each.name, each.kind, version)]
    likely = {each.name for each in pictures} - {each.name for each in rare}
    if not rare:
        return Suspects(frozenset(likely))
    looked = _open_tars(dataset, rare, version) if is_indexed(dataset) else _compare_copies(dataset, rare)
    return Suspects(looked.likely | likely, looked.uncertain)


def describe_affected(dataset: Dataset, found: Affected) -> str:
    """Return a sentence about a dataset with another decoding version, '' if it has this program's."""
    version = dataset.manifest.decoding
    if version == VERSION:
        return ""
    sentence = describe_versions("the dataset", version)
    return sentence if version > VERSION else f"{sentence}. {describe_found(found, version)}"


def describe_found(found: Affected, version: int) -> str:
    """Return which pictures of a dataset an older version decoded differently, and what to do."""
    if not found.count:
        return (
            describe_unknown(found.uncertain)
            if found.uncertain
            else "It holds no such picture, so nothing in it differs"
        )
    are = f"{found.count:,} of its pictures come" if found.count > 1 else "1 of its pictures comes"
    such = f"files of such formats (the first is {found.first})"
    if found.stored:
        return (
            f"{are} from {such}, and the shards contain what version {version} made of them; nothing is damaged. To "
            "store them as they are decoded now, pack the files into a new folder and train on that"
        )
    return (
        f"{are} in {such}, and training and evaluation see them differently than before; nothing is damaged. Train "
        "again, and run `python -m shards index` once more to record this version in the dataset"
    )


def find_decoding(dataset: Dataset, trained_with: int = VERSION) -> int:
    """Return the decoding version with which a model trained on the dataset has seen its pictures.

    trained_with: The decoding version of the oldest program that trained the model.
    """
    seen = min(trained_with if is_indexed(dataset) else dataset.manifest.decoding, VERSION)
    return seen if find_affected(dataset, seen).count else VERSION


def _list_pictures(dataset: Dataset) -> list[_Picture]:
    """Return the file of every sample."""
    storage = open_readable(dataset.location)
    if isinstance(storage, FolderStorage) and dataset.manifest.audited.level != "none":
        try:
            columns = ["source", "format", "mode", "bytes_xxh3", "width", "height", "split"]
            table = pq.read_table(io.BytesIO(storage.read(AUDIT_TABLE)), columns=columns)
        except (OSError, pa.ArrowException):  # the table is only for people and may have been deleted
            pass
        else:
            rows = zip(*(table[name].to_pylist() for name in columns), strict=True)
            return [_Picture(*facts) for *facts, split in rows if split]
    return [_name_picture(dataset, name, mode) for name, mode in _read_indexes(dataset, ["source", "mode"])]


def _name_picture(dataset: Dataset, name: str, mode: str) -> _Picture:
    """Return a picture that was not audited; the index has the mode of the stored picture.

    A gray PNG is also stored as gray, unless it was laid on a coloured background.
    """
    red, green, blue = dataset.manifest.packing.decode.background
    shows = is_indexed(dataset) or red == green == blue
    return _Picture(name, "png", mode) if shows and name.lower().endswith(".png") else _Picture(name, None, None)


def _read_indexes(dataset: Dataset, columns: list[str]) -> Iterator[tuple[str, str]]:
    for split in dataset.manifest.splits:
        with SampleReader(dataset.split(split)) as reader:
            table = reader.read_columns(columns)
        yield from zip(*(table[name].to_pylist() for name in columns), strict=True)


def _compare_copies(dataset: Dataset, pictures: Sequence[_Picture]) -> Suspects:
    """Return the suspects among pictures of a packed dataset."""
    audited = [each for each in pictures if each.bytes_xxh3]
    stored = dict(_read_indexes(dataset, ["source", "bytes_xxh3"])) if audited else {}
    made = [each for each in audited if stored.get(each.name) != each.bytes_xxh3]
    likely = [each.name for each in made if fits(each.width, each.height, dataset.manifest.packing.max_side)]
    settled = {each.name for each in audited} - {each.name for each in made}
    uncertain = {each.name for each in pictures} - settled - {*likely}
    return Suspects(frozenset(likely), frozenset(uncertain))


def _open_tars(dataset: Dataset, pictures: Sequence[_Picture], version: int) -> Suspects:
    """Return the suspects among pictures of an indexed dataset; tars in a store are not fetched for this."""
    names = {each.name for each in pictures}
    if not isinstance(open_readable(dataset.location), FolderStorage):
        return Suspects(uncertain=frozenset(names))
    likely, read = set(), set()
    for part in dataset.manifest.splits:
        split = dataset.split(part)
        with SampleReader(split) as reader:
            for shard, tar in enumerate(split.shard_names):
                rows = reader.read_columns(["source", "offset", "length"], [shard]).to_pylist()
                wanted = [row for row in rows if row["source"] in names]
                likely |= _find_changed(Path(dataset.location) / tar, wanted, version) if wanted else set()
                read |= {row["source"] for row in wanted}
    return Suspects(frozenset(likely), frozenset(names - read))


def _find_changed(tar: Path, rows: Sequence[dict[str, Any]], version: int) -> set[str]:
    """Return the names of changed pictures in a tar; of most pictures only the first bytes are read."""
    with open(tar, "rb", buffering=0) as file:
        return {
            row["source"]
            for row in rows
            if not is_plain_png(os.pread(file.fileno(), HEAD, row["offset"]))
            and is_changed(os.pread(file.fileno(), row["length"], row["offset"]), version)
        }
