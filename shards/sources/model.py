"""What every kind of source comes down to: a list of pictures with labels, and a store that hands out their bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

MANIFEST_NAME = "dataset.json"
"""The file that makes a folder a dataset."""
SPLITS = ("train", "val", "test", "all")
"""`all` holds unlabelled pictures, and nothing else does."""


@dataclass(frozen=True, slots=True)
class Source:
    """One picture that is not read yet.

    name: unique, with `/`: its path below the source folder, in the archive, or as its list spells it.
    labels: class names; one, none (unlabelled) or several (multi-label).
    split: train, val or test; None where the source gives none.
    size: encoded bytes.
    stamp: whatever changes when the file does (mtime in ns, CRC); only compared for equality, never published.
    offset: where its bytes begin in a container that is read by position, else 0.
    weight: in the loss. group: what must not be torn apart by a split, `` for none.
    """

    name: str
    labels: tuple[str, ...]
    split: str | None
    size: int
    stamp: int = 0
    offset: int = 0
    weight: float = 1.0
    group: str = ""


class Store(Protocol):
    """Hands out the encoded bytes of sources. It is pickled to worker processes, so it opens its files late."""

    @property
    def random_access(self) -> bool:
        """False where only `read_in_order` is affordable: in a compressed tar every pass costs the whole archive."""
        ...

    def read(self, source: Source) -> bytes:
        """Return the picture's bytes.

        Raises:
            OSError: The file is gone or cannot be read; the message or filename names it.
            ShardError: The container is damaged, or the picture is not of `source.size` any more.
        """
        ...

    def read_in_order(self, sources: Iterable[Source]) -> Iterator[tuple[Source, bytes]]:
        """Yield each of `sources` with its bytes, in the order of storage, in one pass; raises as `read`."""
        ...


@dataclass(frozen=True)
class SourceList:
    """All pictures in the order of their names.

    classes: sorted class names; empty when unlabelled. display_names: what people read, one for each class.
    root: the folder or archive below which the names lie.
    gives: which of weight and group the source says of every picture, if only by leaving it empty.
    left_out: files that are not pictures, counted by ending. lost: what lies in the class folders without a picture
    that is read, by their names. notes: what the user should know, a sentence each.
    """

    sources: list[Source]
    classes: list[str]
    left_out: dict[str, int]
    store: Store
    display_names: list[str] = field(default_factory=list)
    multi_label: bool = False
    notes: list[str] = field(default_factory=list)
    root: Path | None = None
    gives: frozenset[str] = frozenset()
    lost: dict[str, str] = field(default_factory=dict)

    @property
    def task(self) -> Literal["single-label", "multi-label", "unlabelled"]:
        """What each picture has: one of the classes, any number of them, or nobody said."""
        if self.multi_label:
            return "multi-label"
        return "single-label" if self.classes else "unlabelled"

    @property
    def may_train(self) -> bool:
        """Whether any picture is in train, or may come there."""
        return any(source.split in (None, "train") for source in self.sources)


@dataclass(frozen=True)
class FolderStore:
    """Pictures that are files; `name` may be absolute or climb out of `root`, as a list may spell it."""

    root: Path
    random_access: bool = True

    def read(self, source: Source) -> bytes:
        name = source.name
        handle = os.open(name if name[0] == "/" else f"{self.root}/{name}", os.O_RDONLY)
        try:
            data = os.read(handle, source.size + 1)
            if len(data) != source.size:  # it has changed since it was listed, or came in parts
                while more := os.read(handle, 1 << 20):
                    data += more
            return data
        finally:
            os.close(handle)

    def read_in_order(self, sources: Iterable[Source]) -> Iterator[tuple[Source, bytes]]:
        for source in sources:
            yield source, self.read(source)
