"""`dataset.json`: the manifest that makes a folder of shards a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from shards.dataset.positive import check_positive
from shards.errors import UsageError
from shards.files.fingerprint import fingerprint_json
from shards.files.versioned import parse_page
from shards.pictures.decode import DecodeOptions
from shards.sources.model import MANIFEST_NAME as MANIFEST_NAME
from shards.sources.model import SPLITS
from shards.splits.splits import SplitOptions
from shards.storage.download import fetch
from shards.storage.readable import Readable
from shards.storage.storage import FolderStorage

TABLE_NAME = "shards.parquet"
AUDIT_TABLE = "audit.parquet"
"""The audit's facts about every picture; a dataset is complete without this table."""
INDEXED = "indexed-"
"""Prefix of the plan of a dataset that indexes foreign tars."""
VERSION: Final = 3


Task = Literal["single-label", "multi-label", "unlabelled"]
"""What each picture has: one class, any number of classes, or no labels."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Packing(_Frozen):
    """The options that shaped the shards."""

    shard_bytes: int
    split: SplitOptions
    decode: DecodeOptions
    max_side: int | None = None
    """Longer side in pixels to which larger pictures were shrunk."""
    quality: int | None = None
    """JPEG quality of shrunk pictures; None if nothing is shrunk."""
    plan: str
    """sha256 over these options and the identity of every sample: equal plans give equal shards."""


class Audited(_Frozen):
    """What the audit found among the packed pictures; all 0 and level none without an audit."""

    level: Literal["full", "none"]
    duplicates: int = 0
    """Pictures that are copies of another in the same split."""
    leaks: int = 0
    """Groups of equal pictures in more than one split, allowed by --allow-leaks."""
    conflicts: int = 0
    """Groups of equal pictures with different labels, allowed by --allow-leaks."""
    crossing_groups: int = 0
    """Groups of the source (patients, modules) in more than one split, allowed by --allow-leaks."""
    dropped: int = 0
    """Pictures left out by --drop-duplicates."""


class SplitSummary(_Frozen):
    """What one split holds."""

    samples: int
    shards: int
    bytes: int
    class_counts: list[int]


class Manifest(_Frozen):
    """The content of `dataset.json`."""

    format: Literal["shardline-dataset"] = "shardline-dataset"
    version: Literal[3] = VERSION
    classes: list[str]
    """Class names; a label is a position in this list, also in checkpoints and answers."""
    display_names: list[str]
    task: Task = "single-label"
    positive: str | None = None
    """The class to be found, whose sensitivity is reported; None: unset. It is not part of the dataset's identity."""
    splits: dict[str, SplitSummary]
    packing: Packing
    audited: Audited
    table: str = TABLE_NAME
    """Name of the shard table; each update writes a new one, so that the old dataset stays intact until the update is
    published.
    """
    table_sha256: str
    """sha256 of the shard table, which contains the sha256 of every shard and index."""
    quarantined: int
    updates: int = 0
    """How many times --update added pictures or changed weights and groups."""
    decoding: int = 1
    """Version of decoding that read its pictures, see `shards.pictures.decoding`."""

    @model_validator(mode="after")
    def _positive_is_a_class(self) -> Self:
        check_positive(self.positive, self.classes, self.display_names, self.task)
        return self

    def fingerprint(self) -> str:
        """Return the dataset's identity, which covers every byte of its shards."""
        # Without the decoding version: if it changed what is stored, the shards' hashes differ; if not, the same
        # pictures packed before and after are one dataset, on which a run may resume.
        return fingerprint_json(self.model_dump(mode="json", exclude={"positive", "decoding"}))

    def encode(self) -> bytes:
        """Return the bytes of `dataset.json`; publishing them makes the folder a dataset."""
        unsaid = {"positive"} if self.positive is None else set()  # earlier versions do not know the field
        return (self.model_dump_json(indent=2, exclude=unsaid) + "\n").encode()


def summarise_splits(rows: Sequence[Mapping[str, Any]]) -> dict[str, SplitSummary]:
    """Return what each split holds, from the rows of the shard table."""
    return {split: _summarise([row for row in rows if row["split"] == split]) for split in _order_splits(rows)}


def _order_splits(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [split for split in SPLITS if any(row["split"] == split for row in rows)]


def _summarise(rows: Sequence[Mapping[str, Any]]) -> SplitSummary:
    return SplitSummary(
        samples=sum(row["count"] for row in rows),
        shards=len(rows),
        bytes=sum(row["bytes"] for row in rows),
        class_counts=[sum(counts) for counts in zip(*(row["class_counts"] for row in rows), strict=True)],
    )


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a dataset folder; raises like `find_manifest`."""
    return find_manifest(FolderStorage(folder))


def find_manifest(storage: Readable, deadline_s: float = 60.0) -> Manifest:
    """Return the manifest of the dataset in a storage, which must answer within the deadline.

    Raises:
        UsageError: There is no dataset.
        ShardError: A dataset of another version, or a damaged manifest.
    """
    try:
        data = fetch(storage, MANIFEST_NAME, deadline_s=deadline_s)
    except (FileNotFoundError, NotADirectoryError) as err:
        raise UsageError(f"{storage} {_explain_missing(storage)}") from err
    return parse_manifest(data, f"{storage}/{MANIFEST_NAME}")


def _explain_missing(storage: Readable) -> str:
    lacks = "is not a dataset (it has no dataset.json); make one with `python -m shards pack"
    if not isinstance(storage, FolderStorage):
        return f"{lacks} PICTURES {storage}`"
    if storage.root.is_dir():
        return f"{lacks} {storage} {storage}-shards`, and name that"
    return f"does not exist; make one with `python -m shards pack PICTURES {storage}`"


def parse_manifest(data: bytes, where: object) -> Manifest:
    """Return the manifest from the bytes of `dataset.json`.

    Raises:
        ShardError: A dataset of another version, or a damaged manifest.
    """
    return parse_page(data, where, Manifest, "pack the pictures again")
