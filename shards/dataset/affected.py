"""Which pictures of a dataset an older decoding read otherwise, told without the files that they came from."""

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
    """Pictures that may come out otherwise than by the version with which the dataset was made.

    count: 0 where there is none. first: the first by name. stored: whether the shards hold what the old decoding
    made of them; the tars of an indexed dataset hold the files themselves. untold: further ones that hardly are such,
    and of which nothing that the dataset keeps says so.
    """

    count: int
    first: str
    stored: bool
    untold: int = 0


@dataclass(frozen=True)
class Suspects:
    """Names of pictures that may come out otherwise, and of those that hardly do, but of which nothing tells."""

    likely: frozenset[str] = frozenset()
    untold: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Picture:
    """What is known of a sample's file; of one that no audit read, no hash, and width and height are 0."""

    name: str
    kind: str | None
    mode: str | None
    bytes_xxh3: str = ""
    width: int = 0
    height: int = 0


def find_affected(dataset: Dataset, version: int | None = None) -> Affected:
    """Return the pictures that may come out otherwise than by `version`, None for that of the dataset."""
    return count_suspects(dataset, find_suspects(dataset, version))


def count_suspects(dataset: Dataset, found: Suspects) -> Affected:
    """Return the same without the names."""
    return Affected(len(found.likely), min(found.likely, default=""), not is_indexed(dataset), len(found.untold))


def is_indexed(dataset: Dataset) -> bool:
    """Return whether the dataset is one of tars that somebody else made, which hold the files themselves."""
    return dataset.manifest.packing.plan.startswith(INDEXED)


def find_suspects(dataset: Dataset, version: int | None = None) -> Suspects:
    """Return the pictures that may come out otherwise than by `version`, None for that of the dataset.

    Format and mode are those of the audit, where the dataset lies in a folder and was audited; else names tell. Gray
    PNG are looked at more closely, because hardly any is such: a pack that kept the file's bytes saw nothing odd in
    them, and tars in a folder are opened.
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
    return Suspects(looked.likely | likely, looked.untold)


def describe_affected(dataset: Dataset, found: Affected) -> str:
    """Return a sentence about a dataset of another decoding version, '' where it has this program's."""
    version = dataset.manifest.decoding
    if version == VERSION:
        return ""
    said = describe_versions("the dataset", version)
    return said if version > VERSION else f"{said}. {describe_found(found, version)}"


def describe_found(found: Affected, version: int) -> str:
    """Return what of a dataset differs by an older version, and what to do."""
    if not found.count:
        return describe_unknown(found.untold) if found.untold else "It holds no such picture, so none of it differs"
    are = f"{found.count:,} of its pictures come" if found.count > 1 else "1 of its pictures comes"
    such = f"files of such formats (the first is {found.first})"
    if found.stored:
        return (
            f"{are} from {such}, and the shards hold what version {version} made of them; nothing is damaged. To have "
            "them as they are served, pack the files into a new folder and train on that"
        )
    return (
        f"{are} in {such}, and training and evaluation see them otherwise than before; nothing is damaged. Train "
        "again, and run `python -m shards index` once more to have the dataset say so"
    )


def find_decoding(dataset: Dataset, trained_with: int = VERSION) -> int:
    """Return the version of decoding by which a model of the dataset has seen pictures.

    trained_with: That of the oldest program that trained it.
    """
    seen = min(trained_with if is_indexed(dataset) else dataset.manifest.decoding, VERSION)
    return seen if find_affected(dataset, seen).count else VERSION


def _list_pictures(dataset: Dataset) -> list[_Picture]:
    """Return what every sample came from."""
    storage = open_readable(dataset.location)
    if isinstance(storage, FolderStorage) and dataset.manifest.audited.level != "none":
        try:
            columns = ["source", "format", "mode", "bytes_xxh3", "width", "height", "split"]
            table = pq.read_table(io.BytesIO(storage.read(AUDIT_TABLE)), columns=columns)
        except (OSError, pa.ArrowException):  # it is for people, and may have been deleted
            pass
        else:
            rows = zip(*(table[name].to_pylist() for name in columns), strict=True)
            return [_Picture(*facts) for *facts, split in rows if split]
    return [_name_picture(dataset, name, mode) for name, mode in _read_indexes(dataset, ["source", "mode"])]


def _name_picture(dataset: Dataset, name: str, mode: str) -> _Picture:
    """Return a picture that no audit read. The index has the mode of what is stored.

    That of a gray PNG is gray as well, but for what is laid on a colour.
    """
    red, green, blue = dataset.manifest.packing.decode.background
    tells = is_indexed(dataset) or red == green == blue
    return _Picture(name, "png", mode) if tells and name.lower().endswith(".png") else _Picture(name, None, None)


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
    untold = {each.name for each in pictures} - settled - {*likely}
    return Suspects(frozenset(likely), frozenset(untold))


def _open_tars(dataset: Dataset, pictures: Sequence[_Picture], version: int) -> Suspects:
    """Return the suspects among pictures of an indexed dataset; one in a store is not fetched for this."""
    names = {each.name for each in pictures}
    if not isinstance(open_readable(dataset.location), FolderStorage):
        return Suspects(untold=frozenset(names))
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
    """Return the names of changed pictures of a tar; only the heads of most are read."""
    with open(tar, "rb", buffering=0) as file:
        return {
            row["source"]
            for row in rows
            if not is_plain_png(os.pread(file.fileno(), HEAD, row["offset"]))
            and is_changed(os.pread(file.fileno(), row["length"], row["offset"]), version)
        }
