"""An open dataset: its classes and, for each split, the shard table as arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from shards.dataset.index import parse_shards
from shards.dataset.manifest import Manifest, find_manifest
from shards.dataset.split import Split
from shards.errors import ShardError, UsageError
from shards.files.fingerprint import fingerprint_bytes
from shards.storage.access import CacheOptions
from shards.storage.download import fetch
from shards.storage.readable import Readable
from shards.storage.shown import show_location
from shards.storage.storage import FolderStorage, open_readable


@dataclass(frozen=True)
class Dataset:
    """A dataset in a folder, an object store or on a web server, described by its `dataset.json`."""

    location: str
    """Absolute path or URI."""
    manifest: Manifest
    table: pa.Table
    cache: CacheOptions = field(default_factory=CacheOptions)

    @property
    def classes(self) -> list[str]:
        return self.manifest.classes

    @property
    def splits(self) -> list[str]:
        """Names of the splits."""
        return list(self.manifest.splits)

    def __getitem__(self, name: str) -> Split:
        """Return one split, like `split`."""
        return self.split(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.splits)

    def _repr_html_(self) -> str:
        from shards.dataset.display import draw_dataset

        return draw_dataset(self)

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {each.samples:,}" for name, each in self.manifest.splits.items())
        return f"{show_location(self.location)}: {len(self.classes)} classes, {sizes}"

    def fingerprint(self) -> str:
        return self.manifest.fingerprint()

    def require_labels(self) -> Dataset:
        """Return this dataset if it has labels.

        Raises:
            UsageError: It was packed without labels.
        """
        if self.manifest.task == "unlabelled":
            raise UsageError(
                f"{show_location(self.location)} is unlabelled; training and evaluation need labels: pack it with "
                "them, or use trainer.predict for its pictures"
            )
        return self

    def split(self, name: str) -> Split:
        """Return one split.

        Raises:
            UsageError: The dataset has no such split.
        """
        if name not in self.manifest.splits:
            raise UsageError(
                f"{show_location(self.location)} has no split '{name}'; it has {', '.join(self.manifest.splits)}. "
                f"{self._spell_remedy(name)}"
            )
        table, packing = self.table.filter(pc.field("split") == name), self.manifest.packing
        task, shown = self.manifest.task, tuple(self.manifest.display_names)
        return Split(self.location, name, table, self.cache, task, packing.decode, packing.max_side, shown)

    def _spell_remedy(self, name: str) -> str:
        if name not in ("train", "val", "test"):
            return f"Name one of those, for example {next(iter(self.manifest.splits))}"
        if self.manifest.task == "unlabelled":
            return "Pack the pictures with their labels, which splits are for"
        if "train" not in self.manifest.splits:
            return (
                "It holds only pictures to evaluate a model on; to train on them, pack them without --split test=1 "
                "as class folders outside split folders, or by a list without the column split"
            )
        return "Pack its pictures again into a new folder with --split val=0.1,test=0.1, which makes the missing ones"


def open_dataset(location: str | Path, cache: CacheOptions | None = None) -> Dataset:
    """Open a dataset; only `dataset.json` and the shard table are read.

    Args:
        location: A folder, s3://, gs://, http:// or https://.
        cache: Where and how shards of a remote dataset are cached on this machine; None means the user's cache folder.

    Raises:
        UsageError: There is no dataset at `location`.
        ShardError: The dataset has another version, its manifest or shard table is damaged, or the table is missing or
            differs from its sha256 in the manifest.
        OSError: The store cannot be reached.
    """
    cache = cache or CacheOptions()
    storage = open_readable(location if "://" in str(location) else Path(location).absolute())
    manifest = find_manifest(storage, cache.deadline_s)
    try:
        encoded = fetch(storage, manifest.table, deadline_s=cache.deadline_s)
    except FileNotFoundError:
        manifest = find_manifest(storage, cache.deadline_s)  # an update may just have published another table
        encoded = _read_again(storage, manifest.table, cache.deadline_s)
    where = f"{storage}/{manifest.table}"
    table = parse_shards(encoded, where)
    if fingerprint_bytes(encoded) != manifest.table_sha256:
        raise ShardError(f"{where}: sha256 differs from dataset.json; the table changed after packing. Pack again")
    # The full URI: its query, which messages omit, may hold the store's address.
    return Dataset(str(storage) if isinstance(storage, FolderStorage) else str(location), manifest, table, cache)


def _read_again(storage: Readable, name: str, deadline_s: float) -> bytes:
    try:
        return fetch(storage, name, deadline_s=deadline_s)
    except FileNotFoundError as err:
        raise ShardError(f"{storage}/{name} is missing; restore it from a backup or pack again") from err
