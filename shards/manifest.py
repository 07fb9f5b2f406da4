"""`dataset.json`: the page that makes a folder of shards a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from shards.decode import DecodeOptions
from shards.errors import UsageError
from shards.files import write_text
from shards.fingerprint import fingerprint_json
from shards.pages import read_page

MANIFEST_NAME = "dataset.json"
TABLE_NAME = "shards.parquet"
VERSION: Final = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Packing(_Frozen):
    """The options that shaped the shards."""

    seed: int
    shard_bytes: int
    decode: DecodeOptions
    plan: str
    """sha256 over these options and the identity of every sample: the same plan gives the same shards."""


class SplitSummary(_Frozen):
    """What one split holds."""

    samples: int
    shards: int
    bytes: int
    class_counts: list[int]


class Manifest(_Frozen):
    """The content of `dataset.json`."""

    format: Literal["shardline-dataset"] = "shardline-dataset"
    version: Literal[1] = VERSION
    classes: list[str]
    """Class names; a label is a position in this list, here, in every checkpoint and in every answer."""
    display_names: list[str]
    splits: dict[str, SplitSummary]
    packing: Packing
    table_sha256: str
    """sha256 of shards.parquet, which in turn holds the sha256 of every shard and index."""
    quarantined: int

    def fingerprint(self) -> str:
        """Return the identity of the dataset, byte for byte of its shards."""
        return fingerprint_json(self.model_dump(mode="json"))

    def write(self, folder: Path) -> None:
        """Publish the dataset: from here on the folder is one."""
        write_text(folder / MANIFEST_NAME, self.model_dump_json(indent=2) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a dataset folder.

    Raises:
        UsageError: No dataset there.
        ShardError: A dataset of another version, or a damaged page.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        what = "is not a dataset (it has no dataset.json)" if folder.is_dir() else "does not exist"
        raise UsageError(f"{folder} {what}; make one with `python -m shards pack PICTURES {folder}`")
    return read_page(path, Manifest, "pack the pictures again")
