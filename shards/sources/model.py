"""The common form of all sources: a list of pictures with labels, and a store that reads their bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

MANIFEST_NAME = "dataset.json"
"""The file that makes a folder a dataset."""
SPLITS = ("train", "val", "test", "all")
"""`all` is for unlabelled pictures only."""


@dataclass(frozen=True, slots=True)
class Source:
    """One picture that is not read yet.

    name: unique, with `/`: its path below the source folder, in the archive, or as spelt in its list.
    labels: class names; one, none (unlabelled) or several (multi-label).
    split: train, val or test; None if the source gives none.
    size: encoded bytes.
    stamp: a value that changes with the file (mtime in ns, CRC); only compared for equality, never published.
    offset: where its bytes begin in a container that is read by position, else 0.
    weight: in the loss. group: pictures of one group stay in one split; `` for none.
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
    """Reads the encoded bytes of sources. It is pickled to worker processes, so it opens its files on demand."""

    @property
    def random_access(self) -> bool:
        """False if only `read_in_order` is affordable: every pass over a compressed tar reads the whole archive."""
        ...

    def read(self, source: Source) -> bytes:
        """Return the picture's bytes.

        Raises:
            OSError: The file is gone or cannot be read; the message or filename names it.
            ShardError: The container is damaged, or the picture no longer has `source.size` bytes.
        """
        ...

    def read_in_order(self, sources: Iterable[Source]) -> Iterator[tuple[Source, bytes]]:
        """Yield each of `sources` with its bytes, in stored order, in one pass; raises like `read`."""
        ...


@dataclass(frozen=True)
class SourceList:
    """All pictures, sorted by name.

    classes: sorted class names; empty if unlabelled. display_names: names for people, one per class.
    root: the folder or archive that names are relative to.
    gives: which of weight and group the source gives for every picture, even if empty.
    left_out: number of files that are not pictures, by ending. lost: name of a class folder without a readable picture
    -> what is in it. notes: notes for the user, a sentence each.
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
        """What each picture has: one class, any number of classes, or no labels."""
        if self.multi_label:
            return "multi-label"
        return "single-label" if self.classes else "unlabelled"

    @property
    def may_train(self) -> bool:
        """Whether any picture is in train, or may be put there."""
        return any(source.split in (None, "train") for source in self.sources)


@dataclass(frozen=True)
class FolderStore:
    """Pictures that are files; `name` may be absolute or lead out of `root`, as spelt in a list."""

    root: Path
    random_access: bool = True

    def read(self, source: Source) -> bytes:
        name = source.name
        handle = os.open(name if name[0] == "/" else f"{self.root}/{name}", os.O_RDONLY)
        try:
            data = os.read(handle, source.size + 1)
            if len(data) != source.size:  # it has changed since it was listed, or the read was partial
                while more := os.read(handle, 1 << 20):
                    data += more
            return data
        finally:
            os.close(handle)

    def read_in_order(self, sources: Iterable[Source]) -> Iterator[tuple[Source, bytes]]:
        for source in sources:
            yield source, self.read(source)
