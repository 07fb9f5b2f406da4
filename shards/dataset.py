"""An opened dataset: its classes and, per split, the shard table as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shards.errors import ShardError, UsageError
from shards.fingerprint import fingerprint_file
from shards.index import SHARD_SCHEMA, index_name, read_table
from shards.manifest import Manifest, read_manifest


@dataclass(frozen=True)
class Split:
    """One split: shards in order; arrays have one entry per shard."""

    root: Path
    name: str
    table: pa.Table

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """int64[num_shards]: samples of each shard."""
        return self.table["count"].to_numpy()

    @cached_property
    def first_ids(self) -> npt.NDArray[np.int64]:
        """int64[num_shards]: sample id of each shard's first sample; ids run on inside a shard."""
        return self.table["first_id"].to_numpy()

    @cached_property
    def class_counts(self) -> npt.NDArray[np.int64]:
        """int64[num_shards, num_classes]."""
        return np.array(self.table["class_counts"].to_pylist(), dtype=np.int64)

    @cached_property
    def shard_names(self) -> list[str]:
        names: list[str] = self.table["name"].to_pylist()
        return names

    @property
    def num_samples(self) -> int:
        return int(self.counts.sum())

    def shard_path(self, shard: int) -> Path:
        return self.root / self.shard_names[shard]

    def index_path(self, shard: int) -> Path:
        return self.root / index_name(self.shard_names[shard])


@dataclass(frozen=True)
class Dataset:
    """A folder of shards that `dataset.json` vouches for."""

    root: Path
    manifest: Manifest
    table: pa.Table

    @property
    def classes(self) -> list[str]:
        return self.manifest.classes

    def fingerprint(self) -> str:
        return self.manifest.fingerprint()

    def require_single_label(self) -> Dataset:
        """Return this dataset when each of its samples has one label.

        Raises:
            UsageError: Its samples have several labels or none.
        """
        if self.manifest.task != "single-label":
            raise UsageError(
                f"{self.root} is {self.manifest.task}; training and evaluation take pictures with one label each so far"
            )
        return self

    def split(self, name: str) -> Split:
        """Return one split.

        Raises:
            UsageError: The dataset has no such split.
        """
        if name not in self.manifest.splits:
            raise UsageError(
                f"{self.root} has no split '{name}'; it has {', '.join(self.manifest.splits)}. "
                "Pack again with --split val=0.1,test=0.1 to make the missing ones"
            )
        return Split(self.root, name, self.table.filter(pc.field("split") == name))


def open_dataset(location: str | Path) -> Dataset:
    """Open a dataset by reading `dataset.json` and the shard table, nothing else.

    Raises:
        UsageError: No dataset there.
        ShardError: Another version, or the table is not the one that the manifest names.
    """
    if "://" in str(location):
        raise UsageError(f"{location}: only datasets in local or mounted folders can be opened so far; copy it to one")
    root = Path(location).absolute()
    manifest = read_manifest(root)
    if not (root / manifest.table).is_file():
        manifest = read_manifest(root)  # an update may have published another state a moment ago
    path = root / manifest.table
    table = read_table(path, SHARD_SCHEMA)
    if fingerprint_file(path) != manifest.table_sha256:
        raise ShardError(f"{path}: sha256 differs from dataset.json; the table changed after packing. Pack again")
    return Dataset(root, manifest, table)
