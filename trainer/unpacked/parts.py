"""Sources of unpacked pictures, listed as a stream and read one by one from disk, archives or stores."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from shards.dataset.dataset import Dataset, open_dataset
from shards.dataset.read import SampleReader
from shards.errors import ShardError
from shards.sources.endings import ENDINGS, is_ignored, read_ending
from shards.sources.model import Source, Store
from shards.sources.walk import walk_pictures
from shards.storage.readable import naming
from shards.storage.storage import ObjectStorage, Readable, open_readable, open_storage


class Picture(NamedTuple):
    """One picture. path: its name in result rows; key: what its source reads it by; labels: true labels, if known."""

    path: str
    key: Any
    labels: tuple[str, ...] = ()


class Part(Protocol):
    """The pictures of one source. It is pickled to other machines, which read by absolute paths."""

    @property
    def where(self) -> str:
        """Its name in messages."""
        ...

    @property
    def count(self) -> int | None:
        """Number of pictures; None if they must be listed to know it."""
        ...

    @property
    def random_access(self) -> bool:
        """False if reading one picture costs a pass over all; then use `read_in_order`."""
        ...

    def list(self) -> Iterator[Picture]:
        """Yield all pictures, always in the same order; raises the errors of the source."""
        ...

    def read(self, key: Any) -> bytes:
        """Return a picture's bytes.

        Raises:
            ShardError: The picture is missing or damaged.
            OSError: The whole source is unreachable.
        """
        ...

    def read_in_order(self, pictures: Iterable[Picture]) -> Iterator[tuple[Picture, bytes]]:
        """Yield pictures, given in the order of `list`, with their bytes; raises like `read`."""
        ...


class _ByKey:
    """Base class of sources whose pictures are read one by one."""

    random_access = True

    def read(self, key: Any) -> bytes:
        raise NotImplementedError

    def read_in_order(self, pictures: Iterable[Picture]) -> Iterator[tuple[Picture, bytes]]:
        for picture in pictures:
            yield picture, self.read(picture.key)


class Files(_ByKey):
    """Files by their given names; relative names are below `root`."""

    def __init__(self, names: Iterable[str], root: str = "") -> None:
        self.names = list(names)
        self._root = os.path.join(os.getcwd(), root)

    @property
    def where(self) -> str:
        return self.names[0] if len(self.names) == 1 else f"{len(self.names):,} files"

    @property
    def count(self) -> int:
        return len(self.names)

    def list(self) -> Iterator[Picture]:
        for name in self.names:
            yield Picture(write_name(name), name)

    def read(self, key: str) -> bytes:
        return _read_file(os.path.join(self._root, key))


class Folder(_ByKey):
    """All pictures below a folder; only one folder's names are held at a time."""

    count = None

    def __init__(self, root: str) -> None:
        self.where = str(Path(root))
        self._root = os.path.abspath(root)

    def list(self) -> Iterator[Picture]:
        prefix = "" if self.where == "." else f"{self.where.rstrip('/')}/"
        for name in walk_pictures(self._root):
            yield Picture(write_name(prefix + name), name)

    def read(self, key: str) -> bytes:
        return _read_file(os.path.join(self._root, key))


class Stored:
    """The pictures of a store from `shards.sources`: an archive, a list, WebDataset tars."""

    def __init__(self, where: str, sources: Sequence[Source], store: Store, prefix: str) -> None:
        # Sources without random access are listed in stored order, so that one pass is enough.
        self._sources = sources if store.random_access else sorted(sources, key=lambda source: source.offset)
        self.where, self._store, self._prefix = where, store, prefix

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_sources": []}  # readers get keys and do not list

    @property
    def count(self) -> int:
        return len(self._sources)

    @property
    def random_access(self) -> bool:
        return self._store.random_access

    def list(self) -> Iterator[Picture]:
        for source in self._sources:
            yield Picture(os.path.join(self._prefix, source.name), source, source.labels)

    def read(self, key: Source) -> bytes:
        try:
            return self._store.read(key)
        except OSError as err:
            raise ShardError(_explain(err)) from err

    def read_in_order(self, pictures: Iterable[Picture]) -> Iterator[tuple[Picture, bytes]]:
        asked = {picture.key.name: picture for picture in pictures}
        for source, data in self._store.read_in_order(picture.key for picture in asked.values()):
            yield asked[source.name], data


class Packed(_ByKey):
    """Splits of a packed dataset; paths and labels come from its index."""

    def __init__(self, dataset: Dataset, splits: Sequence[str]) -> None:
        self._location, self._cache, self._classes = dataset.location, dataset.cache, dataset.classes
        self._splits = list(splits)
        self.where = f"{dataset.split(splits[0]).where}:{','.join(splits)}"
        self.count = sum(dataset.split(name).num_samples for name in splits)
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_readers", "_lock", "_begun")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._readers: dict[str, tuple[SampleReader, int]] = {}
        self._begun: dict[str, int] = {}
        self._lock = threading.Lock()

    def list(self) -> Iterator[Picture]:
        dataset = open_dataset(self._location, self._cache)
        for name in self._splits:
            split = dataset.split(name)
            with SampleReader(split) as reader:
                for shard in range(len(split.counts)):
                    columns = reader.read_columns(["source", "label", "labels"], [shard]).to_pydict()
                    for row, (source, label, several) in enumerate(zip(*columns.values(), strict=True)):
                        labels = [label] if label >= 0 else several
                        yield Picture(source, (name, shard, row), tuple(self._classes[number] for number in labels))

    def read(self, key: tuple[str, int, int]) -> bytes:
        name, shard, row = key
        with self._lock:
            if name not in self._readers:
                split = open_dataset(self._location, self._cache).split(name)
                self._readers[name] = SampleReader(split), len(split.counts)
            reader, shards = self._readers[name]
            if reader.ahead_bytes and shard > self._begun.get(name, -1):
                # Prefetch the next shard of a remote dataset, and release those already read.
                self._begun[name] = shard
                reader.announce(range(max(0, shard - 2), min(shard + 2, shards)))
        return reader.read_one(shard, row).data


class Objects(_ByKey):
    """Plain pictures below a prefix of an object store; all names are held for sorting, since listings are unordered.

    If names are given, nothing is listed, and they may be on a web server.
    """

    def __init__(self, uri: str, names: Sequence[str] | None = None) -> None:
        self._uri, self._given = uri, names
        self.where = str(self._storage)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_storage")} | {
            "_names": []
        }

    @cached_property
    def _storage(self) -> ObjectStorage | Readable:
        return open_readable(self._uri) if self._uri.startswith(("http://", "https://")) else self._open_objects()

    def _open_objects(self) -> ObjectStorage:
        storage = open_storage(self._uri)
        assert isinstance(storage, ObjectStorage)  # because it is a URI
        return storage

    @cached_property
    def _names(self) -> Sequence[str]:
        if self._given is not None:
            return self._given
        with naming(self.where):
            names = self._open_objects().sizes()
        return sorted(
            name
            for name in names
            if read_ending(name) in ENDINGS and not any(is_ignored(part) for part in name.split("/"))
        )

    @property
    def count(self) -> int:
        return len(self._names)

    def list(self) -> Iterator[Picture]:
        for name in self._names:
            yield Picture(f"{self.where}/{name}", name)

    def read(self, key: str) -> bytes:
        try:
            return self._storage.read(key)
        except FileNotFoundError as err:
            raise ShardError(_explain(err)) from err


def _read_file(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as err:
        raise ShardError(_explain(err)) from err


def _explain(err: OSError) -> str:
    return (err.strerror or str(err)).lower()


def write_name(name: str) -> str:
    r"""Return a file name as text: bytes that are not UTF-8 are escaped.

    >>> write_name("caf\udce9.png")
    'caf\\xe9.png'
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")
