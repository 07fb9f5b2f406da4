"""Where a dataset is stored: a folder, or a prefix in an object store (s3://, gs://); for reading, also http(s)://.

Files are published whole or not at all. Their names are relative to the dataset, with `/`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.fs as pafs

from shards.errors import UsageError
from shards.files.atomic import lock_folder, write_atomically
from shards.files.disk import MOVE_TEMPORARIES, naming_disk
from shards.files.job_folder import refuse_job_folder
from shards.storage.readable import ArrowFile, ArrowStream, RangeFile, naming
from shards.storage.readable import Readable as Readable
from shards.storage.shown import show_location

_COPY_BYTES = 8 << 20
_ELSEWHERE = f"{MOVE_TEMPORARIES}, where uploads to a store are written first"
_ATTEMPTS = 10  # pyarrow's own 3 give up after a 2 s outage of the store
_READ_ATTEMPTS = 3  # a failed read is resumed by the download
_READ_RETRY_S = 5  # the same for gs://, in seconds; its default of 15 minutes exceeds every deadline


class Storage(Protocol):
    """A location for files; it is pickled to writing processes."""

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every file by name; empty if there are none."""
        ...

    def read(self, name: str) -> bytes:
        """Return a file's content.

        Raises:
            OSError: It does not exist or cannot be read.
        """
        ...

    def write(self, name: str, data: bytes) -> None:
        """Publish a small file."""
        ...

    def writing(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """Yield a binary file that is published under `name` when the block ends without an error."""
        ...

    def delete(self, names: list[str]) -> None:
        """Remove files; missing ones are ignored."""
        ...

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Lock out other writers of this machine while the block runs.

        Raises:
            UsageError: Another process is writing here.
        """
        ...


def open_storage(target: str | Path) -> Storage:
    """Return the storage at a path or URI; nothing is created yet.

    Raises:
        UsageError: A file, a URI whose scheme is neither s3 nor gs, or one that the library cannot parse.
    """
    text = str(target)
    scheme, separator, _ = text.partition("://")
    if not separator:
        if Path(target).is_file():
            raise UsageError(f"{target} is a file; name a folder for the dataset")
        return FolderStorage(refuse_job_folder(Path(target)))
    if scheme not in ("s3", "gs", "gcs"):
        raise UsageError(f"{text}: datasets are written to a folder, s3:// or gs://, not {scheme}://")
    return _open_objects(text, _ATTEMPTS)


def open_readable(location: str | Path) -> Readable:
    """Return a reader for a folder or an s3://, gs://, http:// or https:// location; no request is sent yet.

    Raises:
        UsageError: A URI of another scheme, or one that the library cannot parse.
    """
    text = str(location)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return FolderStorage(Path(location))
    if scheme in ("http", "https"):
        if not rest.partition("/")[0]:
            raise UsageError(f"{text} names no host; write http://HOST/PATH")
        from shards.storage.http import HttpReadable  # late import: httpx takes 0.1 s

        return HttpReadable(text)
    if scheme not in ("s3", "gs", "gcs"):
        raise UsageError(
            f"{text}: {scheme}:// is not supported; name a path of this machine, s3://, gs:// or http(s)://"
        )
    if scheme != "s3" and "retry_limit_seconds=" not in text:
        text += f"{'&' if '?' in text else '?'}retry_limit_seconds={_READ_RETRY_S}"
    return _open_objects(text, _READ_ATTEMPTS)


def _open_objects(uri: str, attempts: int) -> ObjectStorage:
    """Return the prefix that a URI names; S3 requests are tried up to `attempts` times."""
    encoded = _encode(uri)
    try:
        found, root = pafs.FileSystem.from_uri(encoded)
    except (pa.ArrowException, ValueError) as err:
        raise UsageError(f"{uri} is not a location in an object store ({err})") from err
    if isinstance(found, pafs.S3FileSystem):
        retry = pafs.AwsStandardS3RetryStrategy(max_attempts=attempts)
        found = pafs.S3FileSystem(**_s3_options(encoded), retry_strategy=retry)
    return ObjectStorage(found, root.rstrip("/"), show_location(uri))


def _encode(uri: str) -> str:
    """Percent-encode characters that names may contain but URIs may not; existing escapes stay.

    >>> _encode("s3://bucket/肺 1#2/a%20b?region=eu-west-1")
    's3://bucket/%E8%82%BA%201%232/a%20b?region=eu-west-1'
    """
    from urllib.parse import quote

    place, mark, query = uri.partition("?")
    loose = re.sub("%(?![0-9A-Fa-f]{2})", "%25", place)
    return quote(loose, safe="%/:@!$&'()*+,;=~") + mark + query


def _s3_options(uri: str) -> dict[str, Any]:
    """Return a URI's S3 options: endpoint_override, scheme and region of its query, and the keys in it.

    Without keys in it, they come from the environment, as the AWS tools take them.

    >>> _s3_options("s3://key:a%2Fb@bucket/cells?region=eu-west-1")
    {'region': 'eu-west-1', 'access_key': 'key', 'secret_key': 'a/b'}
    """
    from urllib.parse import parse_qsl, unquote, urlsplit

    parts = urlsplit(uri)
    query = dict(parse_qsl(parts.query))
    options: dict[str, Any] = {name: query[name] for name in ("endpoint_override", "scheme", "region") if name in query}
    if parts.username and parts.password:
        options |= {"access_key": unquote(parts.username), "secret_key": unquote(parts.password)}
    return options


@dataclass(frozen=True)
class FolderStorage:
    """A folder on a disk that this machine sees."""

    root: Path

    def __str__(self) -> str:
        return str(self.root)

    def sizes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for parent, _, names in os.walk(self.root):
            for name in names:
                path = Path(parent, name)
                with contextlib.suppress(FileNotFoundError):  # a temporary file of another writer
                    found[path.relative_to(self.root).as_posix()] = path.stat().st_size
        return found

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def size(self, name: str) -> int:
        return (self.root / name).stat().st_size

    def open(self, name: str) -> ArrowFile:
        path = str(self.root / name)
        with naming(path):
            return ArrowFile(pa.OSFile(path), path)

    def write(self, name: str, data: bytes) -> None:
        with self.writing(name) as file:
            file.write(data)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as file:
            yield file

    def delete(self, names: list[str]) -> None:
        for name in names:
            (self.root / name).unlink(missing_ok=True)
        above = {folder for name in names for folder in (self.root / name).relative_to(self.root).parents}
        for folder in sorted(above - {Path()}, key=lambda folder: -len(folder.parts)):
            with contextlib.suppress(OSError):  # not empty
                (self.root / folder).rmdir()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        refusal = f"another process is packing into {self.root}; wait for it, or name another folder"
        with lock_folder(self.root, refusal):
            yield


@dataclass(frozen=True)
class ObjectStorage:
    """A prefix of an object store; an object appears only when its upload is complete.

    Compression is off everywhere: by default, pyarrow compresses files named .gz or .bz2.
    """

    filesystem: pafs.FileSystem
    root: str
    uri: str

    def __str__(self) -> str:
        return self.uri

    def sizes(self) -> dict[str, int]:
        selector = pafs.FileSelector(self.root, recursive=True, allow_not_found=True)
        infos = [info for info in self.filesystem.get_file_info(selector) if info.is_file]
        return {info.path.removeprefix(self.root).lstrip("/"): info.size for info in infos}

    def read(self, name: str) -> bytes:
        path = f"{self.root}/{name}"
        with naming(f"{self.uri}/{name}"), self.filesystem.open_input_stream(path, compression=None) as file:
            content: bytes = file.read()
        return content

    def size(self, name: str) -> int:
        file = self.open(name)
        file.close()
        return file.size

    def open(self, name: str) -> RangeFile:
        path, where = f"{self.root}/{name}", f"{self.uri}/{name}"
        if isinstance(self.filesystem, pafs.GcsFileSystem):
            return ArrowStream(self.filesystem, path, where)
        with naming(where):
            return ArrowFile(self.filesystem.open_input_file(path), where)

    def write(self, name: str, data: bytes) -> None:
        with self.writing(name) as file:
            file.write(data)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        # Written to disk first: closing an upload publishes what was sent so far, even after an error.
        with tempfile.TemporaryFile(prefix="shardline-") as spool:
            with naming_disk(Path(tempfile.gettempdir(), "upload"), elsewhere=_ELSEWHERE):
                yield spool
                spool.flush()
            spool.seek(0)
            with self.filesystem.open_output_stream(f"{self.root}/{name}", compression=None) as upload:
                shutil.copyfileobj(spool, upload, _COPY_BYTES)

    def delete(self, names: list[str]) -> None:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self.filesystem.delete_file(f"{self.root}/{name}")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Yield at once: an object store has no locks. Two writers of one plan would write the same bytes."""
        yield
