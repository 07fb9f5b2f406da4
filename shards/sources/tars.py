"""Pictures in tars: listed in one pass over the headers, read by byte offset, or in one pass if compressed."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import tarfile
import threading
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa

from shards.errors import ShardError
from shards.sources.model import Source

BLOCK = 512
_SKIP = 1 << 20
_END = bytes(BLOCK)


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a tar. offset: where its bytes begin in the uncompressed tar. plain: a regular file, not a link.
    picture: a picture by its content, whatever its name."""

    name: str
    size: int
    offset: int
    plain: bool
    folder: bool = False
    picture: bool = False


class PassedTar:
    """One pass over a tar: its members in stored order, and the bytes of the member yielded last."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file = path, _Forward(file)

    def __iter__(self) -> Iterator[Member]:
        """Yield all members.

        Raises:
            ShardError: Damaged or truncated.
        """
        with refusing(self._path):
            # As a file, not a stream: tarfile's own streams hide how the archive ends.
            with tarfile.open(fileobj=cast("IO[bytes]", self._file), mode="r:") as tar:
                while (found := tar.next()) is not None:
                    cast("Any", tar).members.clear()  # tarfile would keep every header
                    plain = found.isreg() and not found.issparse()
                    yield Member(found.name.removeprefix("./"), found.size, found.offset_data, plain, found.isdir())
            # tarfile treats an unreadable header as the end.
            if self._file.last != _END:
                raise ShardError(
                    f"{self._path} breaks off at byte {self._file.tell():,} without the mark that ends a tar; fetch "
                    "or write it again"
                )

    def read(self, member: Member) -> bytes:
        """Return the bytes of the member yielded last; raises like iteration."""
        with refusing(self._path):
            self._file.seek(member.offset)
            data = self._file.read(member.size)
            if len(data) != member.size:
                raise EOFError(f"{member.name} has {len(data):,} of {member.size:,} bytes")
            return data

    def read_head(self, member: Member, size: int) -> bytes:
        """Return the first bytes of the member yielded last; raises like iteration."""
        with refusing(self._path):
            self._file.seek(member.offset)
            return self._file.read(min(size, member.size))

    def drain(self) -> None:
        """Read to the end, where compressed files have their checksums; raises like iteration."""
        with refusing(self._path):
            while self._file.read(_SKIP):
                pass


class _Forward:
    """A file read only forward, as `tarfile` does; `last` is the result of the last read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._at, self.last = file, 0, b""
        self._skips = isinstance(file, io.BufferedReader)

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        self.last = self._file.read(size)
        self._at += len(self.last)
        return self.last

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        assert whence == os.SEEK_SET
        if self._skips:
            self._at = self._file.seek(offset)
            return self._at
        assert offset >= self._at
        while self._at < offset and self.read(min(_SKIP, offset - self._at)):
            pass
        return self._at


def open_tar(path: Path) -> contextlib.AbstractContextManager[IO[bytes]]:
    """Return the uncompressed bytes of a tar; the ending of its name gives the compression."""
    name = path.name.lower()
    if name.endswith((".gz", ".tgz")):
        return cast("contextlib.AbstractContextManager[IO[bytes]]", gzip.open(path, "rb"))
    if name.endswith((".bz2", ".tbz2", ".tbz")):
        return cast("contextlib.AbstractContextManager[IO[bytes]]", bz2.open(path, "rb"))
    if name.endswith((".xz", ".txz")):
        return cast("contextlib.AbstractContextManager[IO[bytes]]", lzma.open(path, "rb"))
    if name.endswith((".zst", ".tzst")):
        return cast("contextlib.AbstractContextManager[IO[bytes]]", pa.input_stream(str(path), compression="zstd"))
    return open(path, "rb")


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn everything that a damaged archive raises into ShardError."""
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError, pa.ArrowException) as err:
        if isinstance(err, OSError) and err.filename:
            raise
        raise ShardError(
            f"{path} is damaged or not what its ending indicates ({err}); fetch or write it again"
        ) from err


class LateFile:
    """A file that is opened on first read, in whichever process that is; thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._file: io.FileIO | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return LateFile, (self._path,)

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, size: int, offset: int) -> bytes:
        """Return `size` bytes from `offset`, fewer if the file ends."""
        with self._lock:
            if self._file is None:
                self._file = open(self._path, "rb", buffering=0)  # noqa: SIM115, lives as long as this object
        return os.pread(self._file.fileno(), size, offset)


def read_exactly(path: Path, file: LateFile, source: Source) -> bytes:
    """Return the bytes of an uncompressed picture.

    Raises:
        ShardError: The file ends before them.
    """
    data = file.read(source.size, source.offset)
    if len(data) != source.size:
        raise ShardError(
            f"{path} ends inside {source.name} ({len(data):,} of {source.size:,} bytes at {source.offset:,}); it "
            "was truncated after it was listed: fetch or write it again"
        )
    return data


class TarStore:
    """Pictures in one uncompressed tar."""

    random_access = True

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, LateFile(path)

    def read(self, source: Source) -> bytes:
        return read_exactly(self._path, self._file, source)

    def read_in_order(self, sources: Iterable[Source]) -> Iterator[tuple[Source, bytes]]:
        for source in sorted(sources, key=lambda source: source.offset):
            yield source, self.read(source)


class StreamStore:
    """Pictures in one compressed tar; each pass decompresses it from its beginning."""

    random_access = False

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, source: Source) -> bytes:
        return next(self.read_in_order([source]))[1]

    def read_in_order(self, sources: Iterable[Source]) -> Iterator[tuple[Source, bytes]]:
        wanted = {source.offset: source for source in sources}
        if not wanted:
            return
        with open_tar(self._path) as file:
            tar = PassedTar(self._path, file)
            for member in tar:
                source = wanted.get(member.offset)
                if source is None:
                    continue
                if member.size != source.size or not member.plain:
                    break
                del wanted[member.offset]
                yield source, tar.read(member)
                if not wanted:
                    return
        name = min(source.name for source in wanted.values())
        raise ShardError(
            f"{self._path} does not hold {name} as it was listed; it has changed since. Run the command again"
        )
