"""What a dataset's files are read through, wherever they lie; and what a store's refusals are called."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.fs as pafs

from shards.errors import UsageError

# pyarrow raises a bare OSError for each of these; the words are those of the S3 and GCS libraries in it.
_DENIED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|EXPIRED_TOKEN|MISSING_AUTHENTICATION_TOKEN"
    r"|UNRECOGNIZED_CLIENT|PERMISSION_DENIED|UNAUTHENTICATED|HTTP status(?: code:)? 40[13]\b"
)
_SKIP_BYTES = 4 << 20
_MISDIRECTED = re.compile(r"HTTP status(?: code:)? (30[0-9]|400)\b|INVALID_ARGUMENT")


class ObjectChangedError(OSError):
    """A file took another content while it was being read; its parts must not be mixed."""


class RangeFile(Protocol):
    """One file, opened for reading by ranges."""

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        ...

    def read_at(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`, at least one unless the file ends there.

        Raises:
            ObjectChangedError: The file is no longer the one that was opened.
            OSError: The store did not answer, or not in full.
        """
        ...

    def close(self) -> None: ...


class Readable(Protocol):
    """A place from which files are read; pickled to the processes that read."""

    def __str__(self) -> str:
        """Return the location without anything secret in it."""
        ...

    def read(self, name: str) -> bytes:
        """Return a file's content; raises as `open`."""
        ...

    def size(self, name: str) -> int:
        """Return a file's size in bytes; raises as `open`."""
        ...

    def open(self, name: str) -> RangeFile:
        """Open a file for reading by ranges.

        Raises:
            FileNotFoundError: No such file.
            PermissionError: The store refuses these keys.
            UsageError: The store refuses the request as such: another region, a wrong endpoint.
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
    """A `RangeFile` that reads a file of pyarrow from its start on, and skips to where it is asked to go on.

    For gs://: whatever is asked of pyarrow's random access file there first opens a download, and holds the
    interpreter's lock (GIL) meanwhile, so that a stall would stop every thread of the process.
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
    """Raise what a store refuses by its kind, with the whole URI; what may heal stays the OSError that it is."""
    try:
        yield
    except FileNotFoundError as err:
        raise FileNotFoundError(errno.ENOENT, "no such object", where) from err
    except OSError as err:
        if isinstance(err, PermissionError) and err.filename:
            raise  # this has named it already, further in
        if _DENIED.search(str(err)):
            raise denied(where, one_line(err)) from err
        if _MISDIRECTED.search(str(err)):
            raise UsageError(
                f"{where}: the store refuses the request ({one_line(err)}); check region, endpoint and bucket"
            ) from err
        raise
    except pa.ArrowException as err:  # a range behind the end of a file that has shrunk, for one
        raise ConnectionError(f"{where}: {one_line(err)}") from err


def denied(where: str, cause: str) -> PermissionError:
    """Return the error for keys that a store does not take."""
    remedy = "check the keys in the environment, or sign the URL anew where it is a signed one"
    return PermissionError(errno.EACCES, f"the store denies access ({cause}); {remedy}", where)


def one_line(err: BaseException, limit: int = 300) -> str:
    """Return an error's text on one line of at most `limit` characters."""
    text = " ".join(str(err).split()) or type(err).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
