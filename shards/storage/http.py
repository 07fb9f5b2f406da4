"""Files behind http:// and https://, read by ranges over one connection each."""

from __future__ import annotations

import errno
import functools
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

import httpx

from shards.errors import UsageError
from shards.storage.readable import ObjectChangedError, denied, one_line

_TIMEOUT_S = 10.0  # to connect, and between two packets
_HEALING = {408, 425, 429}  # temporary errors, as are all from 500 up


@dataclass(frozen=True)
class HttpReadable:
    """The files below a URL. Its query, which may be a signature, is sent with every request but never shown."""

    url: str

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))

    def read(self, name: str) -> bytes:
        file = self.open(name)
        try:
            content = bytearray()
            while len(content) < file.size:
                content += file.read_at(len(content), file.size - len(content))
        finally:
            file.close()
        return bytes(content)

    def size(self, name: str) -> int:
        file = self.open(name)
        file.close()
        return file.size

    def open(self, name: str) -> HttpFile:
        parts = urlsplit(self.url)
        path = f"{parts.path.rstrip('/')}/{quote(name)}"
        url = urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
        return HttpFile(_client(os.getpid()), url, f"{self}/{name}")


@functools.cache
def _client(_process: int) -> httpx.Client:
    """Return this process's client: one connection pool, which threads can share."""
    logging.getLogger("httpx").addFilter(_hide_query)
    return httpx.Client(timeout=_TIMEOUT_S, follow_redirects=True)


def _hide_query(record: logging.LogRecord) -> bool:
    """Remove the query, which may be a signature, from the line that httpx logs for each request."""
    if isinstance(record.args, tuple):
        record.args = tuple(arg.copy_with(query=None) if isinstance(arg, httpx.URL) else arg for arg in record.args)
    return True


class HttpFile:
    """A file that is being received from `offset` on; reading elsewhere sends a new request from there."""

    def __init__(self, client: httpx.Client, url: str, where: str) -> None:
        self._client, self._url, self._where = client, url, where
        self._version: tuple[int, str] | None = None
        self._response: httpx.Response | None = None
        self._body: Iterator[bytes] = iter(())
        self._rest = b""
        self._offset = 0
        self._ask(0)

    @property
    def size(self) -> int:
        assert self._version is not None
        return self._version[0]

    def read_at(self, offset: int, length: int) -> bytes:
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        if self._response is None or offset != self._offset:
            self._ask(offset)
        content = bytearray()
        try:
            while len(content) < length:
                content += self._receive(length - len(content))
        except ConnectionError:
            self.close()
            if not content:  # bytes before the cut count: the next read resumes after them
                raise
        self._offset += len(content)
        if self._offset == self.size:
            self.close()
        return bytes(content)

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
        self._response, self._rest = None, b""

    def _receive(self, most: int) -> bytes:
        """Return the next 1 to `most` bytes of the body."""
        if not self._rest:
            try:
                self._rest = next(self._body)
            except StopIteration:
                raise ConnectionError(f"{self._where}: the answer ends early") from None
            except (httpx.HTTPError, httpx.StreamError) as err:
                raise ConnectionError(f"{self._where}: {one_line(err)}") from err
        part, self._rest = self._rest[:most], self._rest[most:]
        return part

    def _ask(self, offset: int) -> None:
        """Request everything from `offset` on, and check that the file has not changed."""
        self.close()
        # A compressed response would have other offsets than the file.
        headers = {"Range": f"bytes={offset}-", "Accept-Encoding": "identity"}
        try:
            response = self._client.send(self._client.build_request("GET", self._url, headers=headers), stream=True)
        except httpx.TimeoutException as err:
            raise TimeoutError(f"{self._where}: {one_line(err)}") from err
        except (httpx.HTTPError, httpx.InvalidURL) as err:
            if "CERTIFICATE_VERIFY_FAILED" in str(err) or isinstance(err, httpx.InvalidURL | httpx.UnsupportedProtocol):
                raise UsageError(f"{self._where} cannot be requested ({one_line(err)}); check the URL") from err
            raise ConnectionError(f"{self._where}: {one_line(err)}") from err
        self._response, self._body = response, response.iter_raw()
        try:
            self._begin(response, offset)
        except BaseException:
            self.close()
            raise

    def _begin(self, response: httpx.Response, offset: int) -> None:
        start, version = _describe(response, offset, self._where)
        if self._version is None:
            self._version = version
        elif version != self._version:
            raise ObjectChangedError(f"{self._where} changed while it was being read")
        self._offset = offset
        left = offset - start  # a server without ranges sends the file from its start
        while left > 0:
            left -= len(self._receive(left))


def _describe(response: httpx.Response, offset: int, where: str) -> tuple[int, tuple[int, str]]:
    """Return the offset at which a response begins, and the file's version: its size and tag.

    We compare the tag ourselves in every response: not every server heeds If-Match, and none may for a weak tag.
    """
    tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise UsageError(f"{where} is served compressed, so ranges of it cannot be read; serve it uncompressed")
    span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", response.headers.get("Content-Range", ""))
    if response.status_code == 206 and span and span[1] == str(offset):
        return offset, (int(span[2]), tag)
    if response.status_code == 416 and span and int(span[2]) <= offset:
        return offset, (int(span[2]), tag)
    if response.status_code == 200 and "Content-Length" in response.headers:
        return 0, (int(response.headers["Content-Length"]), tag)
    raise _refusal(response, where)


def _refusal(response: httpx.Response, where: str) -> Exception:
    """Return the error for a response that is not the file."""
    status = response.status_code
    status_line = f"HTTP {status} {response.reason_phrase}".strip()
    if status in (404, 410):
        return FileNotFoundError(errno.ENOENT, "no such object", where)
    if status in (401, 403, 407):
        return denied(where, status_line)
    if status in _HEALING or status >= 500:
        return ConnectionError(f"{where}: {status_line}")
    if status in (200, 206):
        return UsageError(
            f"{where}: the server does not declare which bytes it sends ({status_line} without a length or a range); "
            "use a server that answers Range requests"
        )
    return UsageError(f"{where}: the server refuses the request ({status_line}); check the URL")
