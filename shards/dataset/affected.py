"""Which pictures of a dataset an older decoding read otherwise, told without the files that they came from."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from shards.dataset.dataset import Dataset
from shards.dataset.manifest import AUDIT_TABLE, INDEXED
from shards.dataset.read import SampleReader
from shards.pictures.decoding import VERSION, describe_versions, may_be_changed
from shards.storage.storage import FolderStorage, open_readable


@dataclass(frozen=True, slots=True)
class Affected:
    """Pictures that may come out otherwise than by the version with which the dataset was made.

    count: 0 where there is none. first: the first by name. stored: whether the shards hold what the old decoding
    made of them; the tars of an indexed dataset hold the files themselves.
    """

    count: int
    first: str
    stored: bool


def find_affected(dataset: Dataset, version: int | None = None) -> Affected:
    """Return the pictures that may come out otherwise than by `version`, None for that of the dataset.

    Format and mode are those of the audit, where the dataset lies in a folder and was audited; else names tell.
    """
    version = dataset.manifest.decoding if version is None else version
    stored = not dataset.manifest.packing.plan.startswith(INDEXED)
    if version >= VERSION:
        return Affected(0, "", stored)
    found = [name for name, kind, mode in _list_sources(dataset) if may_be_changed(name, kind, mode, version)]
    return Affected(len(found), min(found, default=""), stored)


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
        return "It holds no such picture, so none of it differs"
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
    stored = not dataset.manifest.packing.plan.startswith(INDEXED)
    seen = min(dataset.manifest.decoding if stored else trained_with, VERSION)
    return seen if find_affected(dataset, seen).count else VERSION


def _list_sources(dataset: Dataset) -> list[tuple[str, str | None, str | None]]:
    """Return name, format and mode of what every sample came from; names alone where no audit recorded the others."""
    storage = open_readable(dataset.location)
    if isinstance(storage, FolderStorage) and dataset.manifest.audited.level != "none":
        try:
            columns = ["source", "format", "mode", "split"]
            table = pq.read_table(io.BytesIO(storage.read(AUDIT_TABLE)), columns=columns).to_pylist()
            return [(row["source"], row["format"], row["mode"]) for row in table if row["split"]]
        except (OSError, pa.ArrowException):  # it is for people, and may have been deleted
            pass
    names: list[str] = []
    for split in dataset.manifest.splits:
        with SampleReader(dataset.split(split)) as reader:
            names += reader.read_column("source").tolist()
    return [(name, None, None) for name in names]
