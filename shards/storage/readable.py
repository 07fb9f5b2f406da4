"""How a dataset's files are read from any store, and how a store's errors are named."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.fs as pafs

from shards.errors import UsageError

# pyarrow raises a bare OSError for each of these; the words are those of its S3 and GCS libraries.
_DENIED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|EXPIRED_TOKEN|MISSING_AUTHENTICATION_TOKEN"
    r"|UNRECOGNIZED_CLIENT|PERMISSION_DENIED|UNAUTHENTICATED|HTTP status(?: code:)? 40[13]\b"
)
_SKIP_BYTES = 4 << 20
_MISDIRECTED = re.compile(r"HTTP status(?: code:)? (30[0-9]|400)\b|INVALID_ARGUMENT")


class ObjectChangedError(OSError):
    """A file changed while it was being read; its old and new bytes must not be mixed."""


class RangeFile(Protocol):
    """One file, opened for reading by ranges."""

    @property
    def size(self) -> int:
        """Size of the whole file in bytes."""
        ...

    def read_at(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`, at least one unless the file ends there.

        Raises:
            ObjectChangedError: The file has changed since it was opened.
            OSError: The store did not answer, or not completely.
        """
        ...

    def close(self) -> None: ...


class Readable(Protocol):
    """A location from which files are read; it is pickled to reading processes."""

    def __str__(self) -> str:
        """Return the location without secrets."""
        ...

    def read(self, name: str) -> bytes:
        """Return a file's content; raises like `open`."""
        ...

    def size(self, name: str) -> int:
        """Return a file's size in bytes; raises like `open`."""
        ...

    def open(self, name: str) -> RangeFile:
        """Open a file for reading by ranges.

        Raises:
            FileNotFoundError: No such file.
            PermissionError: The store refuses the keys.
            UsageError: The store refuses the request itself: wrong region or endpoint.
            OSError: The store cannot be reached.
        """
        ...


class ArrowFile:
    """A `RangeFile` on a file of pyarrow: each `read_at` is one ranged request."""

    def __init__(self, file: Any, where: str) -> None:
        self._file, self._where = file, where
        self._size = int(file.size())

    @property
    def size(self) -> int:
        return self._size

    def read_at(self, offset: int, length: int) -> bytes:
        with naming(self._where):
            content: bytes = self._file.read_at(length, offset)
        return content

    def close(self) -> None:
        self._file.close()


class ArrowStream:
    """A `RangeFile` that reads a pyarrow file as a stream from its start and skips to the requested offset.

    For gs://: there, every call on pyarrow's random-access file first opens a download while holding the interpreter's
    lock (GIL), so that a stall would stop every thread of the process.
    """

    def __init__(self, filesystem: pafs.FileSystem, path: str, where: str) -> None:
        self._filesystem, self._path, self._where = filesystem, path, where
        self._stream: Any = None
        self._offset = 0
        with naming(where):
            info = filesystem.get_file_info(path)
            if not info.is_file:
                raise FileNotFoundError(path)
        self._size = int(info.size)

    @property
    def size(self) -> int:
        return self._size

    def read_at(self, offset: int, length: int) -> bytes:
        with naming(self._where):
            if self._stream is None or offset < self._offset:
                self.close()
                self._stream, self._offset = self._filesystem.open_input_stream(self._path, compression=None), 0
            while self._offset < offset and self._read(min(_SKIP_BYTES, offset - self._offset)):
                pass
            return self._read(length)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream = None

    def _read(self, length: int) -> bytes:
        content: bytes = self._stream.read(length)
        self._offset += len(content)
        return content


@contextlib.contextmanager
def naming(where: str) -> Iterator[None]:
    """Raise a store's errors as the matching exception with the full URI; temporary ones stay plain OSError."""
    try:
        yield
    except FileNotFoundError as err:
        raise FileNotFoundError(errno.ENOENT, "no such object", where) from err
    except OSError as err:
        if isinstance(err, PermissionError) and err.filename:
            raise  # an inner call has added the name
        if _DENIED.search(str(err)):
            raise denied(where, one_line(err)) from err
        if _MISDIRECTED.search(str(err)):
            raise UsageError(
                f"{where}: the store refuses the request ({one_line(err)}); check region, endpoint and bucket"
            ) from err
        raise
    except pa.ArrowException as err:  # for example a range behind the end of a file that has shrunk
        raise ConnectionError(f"{where}: {one_line(err)}") from err


def denied(where: str, cause: str) -> PermissionError:
    """Return the error for keys that a store refuses."""
    remedy = "check the keys in the environment, or sign the URL again if it is a signed one"
    return PermissionError(errno.EACCES, f"the store denies access ({cause}); {remedy}", where)


def one_line(err: BaseException, limit: int = 300) -> str:
    """Return an error's text on one line of at most `limit` characters."""
    text = " ".join(str(err).split()) or type(err).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
