"""Reading the body of a request, and the pictures in it, within the limits of bytes, values, time and rate."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from cluster.serve.options import Limits
from cluster.serve.problem import ProblemError

FIELD: Final = "file"
_JSON: Final = "application/json"
_MULTIPART: Final = "multipart/form-data"
# The last is the type that `curl --data-binary` sends for any file.
_RAW: Final = ("application/octet-stream", "application/x-www-form-urlencoded")
_FRAMING_BYTES: Final = 64 * 1024  # boundaries and part headers around the pictures
_MOST_VALUES: Final = 4_000_000
"""Values in the JSON of a request. Parsing them takes up to 64 bytes each, and the event loop waits meanwhile."""
_WINDOW_S: Final = 5.0
"""The rate of an upload is counted over so many seconds."""


@dataclass(frozen=True)
class Sent:
    """The pictures of a request as encoded bytes; `is_list` if the sender wants a list of answers, even of one."""

    pictures: list[bytes]
    is_list: bool = False


class Held:
    """Bytes that all arriving requests of a replica hold."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._bytes = limits, 0

    @contextlib.contextmanager
    def count(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that adds bytes to those that are held; they are released after the block.

        Raises:
            ProblemError: All requests together hold too much.
        """
        mine = 0

        def add(size: int) -> None:
            nonlocal mine
            if self._bytes + size > self._limits.max_held_bytes:
                raise ProblemError(
                    "busy",
                    "too many large requests arrive at the same time; send this one again",
                    "max_held_mib",
                    self._limits,
                    {"retry-after": "1"},
                )
            mine += size
            self._bytes += size

        try:
            yield add
        finally:
            self._bytes -= mine


def describe_late_upload(limits: Limits) -> ProblemError:
    """Return the error of a request that has not arrived in time."""
    sentence = f"the request did not arrive within {limits.max_upload_s:g} s; send it again"
    return ProblemError("upload-too-slow", sentence, "max_upload_s", limits)


async def read_pictures(request: Request, limits: Limits, held: Held) -> Sent:
    """Return the pictures in `request`.

    Raises:
        ProblemError: It is too large, too slow, or of another form.
        ClientDisconnect: The client has left.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    with held.count() as add:
        if kind == _MULTIPART:
            sent = await _read_form(request, limits, add)
        elif kind == _JSON:
            sent = _read_json(await _read_all(request, limits, limits.max_request_bytes, add))
        elif kind and not kind.startswith("image/") and kind not in _RAW:
            raise ProblemError(
                "unsupported-type",
                f"content type {kind} is not supported; send a picture as image/* or application/octet-stream, "
                f"pictures as multipart/form-data in fields '{FIELD}' (curl -F {FIELD}=@picture.jpg), or as "
                f"{_JSON} in base64",
            )
        else:
            sent = Sent([await _read_all(request, limits, limits.max_bytes, add)])
    check_pictures(sent.pictures, limits)
    return sent


async def read_body(request: Request, limits: Limits, held: Held) -> bytes:
    """Return the body of `request`, of any type.

    Raises:
        ProblemError: It is too large or too slow.
        ClientDisconnect: The client has left.
    """
    with held.count() as add:
        return await _read_all(request, limits, limits.max_request_bytes, add)


def check_pictures(pictures: Sequence[bytes], limits: Limits) -> None:
    """Check the number and the sizes of encoded pictures.

    Raises:
        ProblemError: There are too many, or one has too many bytes.
    """
    check_number(len(pictures), limits)
    for place, data in enumerate(pictures):
        if len(data) > limits.max_bytes:
            name = "the picture" if len(pictures) == 1 else f"picture[{place}]"
            raise _too_large(f"{name} has {len(data):,} bytes", "max_mib", limits)


def check_number(number: int, limits: Limits) -> None:
    """Check how many pictures a request has.

    Raises:
        ProblemError: There are too many.
    """
    if number > limits.max_pictures:
        raise ProblemError(
            "too-large",
            f"the request has {number:,} pictures, over the limit of {limits.max_pictures:,}; send fewer per request",
            "max_pictures",
            limits,
        )


async def _read_all(request: Request, limits: Limits, limit: int, add: Callable[[int], None]) -> bytes:
    return b"".join([chunk async for chunk in _stream(request, limits, limit, add)])


async def _stream(
    request: Request, limits: Limits, limit: int, add: Callable[[int], None]
) -> AsyncGenerator[bytes, None]:
    """Yield the body; its announced and its actual size are limited to `limit` bytes, its rate and time by `limits`."""
    announced = request.headers.get("content-length", "")
    too_large = ("the picture", "max_mib") if limit == limits.max_bytes else ("the request", "max_request_mib")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(f"{too_large[0]} has {int(announced):,} bytes", too_large[1], limits)
    size, pace, chunks = 0, _Pace(limits), request.stream()
    while True:
        try:
            async with asyncio.timeout(pace.seconds_left()):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError as err:
            raise pace.describe() from err
        pace.count(len(chunk))
        add(len(chunk))
        size += len(chunk)
        if size > limit:
            raise _too_large(f"{too_large[0]} has at least {size:,} bytes", too_large[1], limits)
        yield chunk


class _Pace:
    """The rate of one upload, in windows of a few seconds."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._began = self._window_began = time.monotonic()
        self._window_bytes = 0

    def seconds_left(self) -> float:
        """Return the seconds within which more bytes must come."""
        now = time.monotonic()
        whole = self._began + self._limits.max_upload_s - now
        return min(whole, self._window_began + _WINDOW_S - now) if self._limits.min_kib_per_s else whole

    def count(self, size: int) -> None:
        """Count bytes that have come; a window ends when it has enough."""
        self._window_bytes += size
        if self._window_bytes >= self._limits.min_kib_per_s * 1024 * _WINDOW_S:
            self._window_began, self._window_bytes = time.monotonic(), 0

    def describe(self) -> ProblemError:
        """Return the error of an upload that is too slow."""
        seconds = time.monotonic() - self._began
        if seconds >= self._limits.max_upload_s:
            return describe_late_upload(self._limits)
        return ProblemError(
            "upload-too-slow",
            f"the request arrived at less than {self._limits.min_kib_per_s:g} KiB/s; send it again over a faster line",
            "min_kib_per_s",
            self._limits,
        )


async def _read_form(request: Request, limits: Limits, add: Callable[[int], None]) -> Sent:
    stream = _stream(request, limits, limits.max_request_bytes + _FRAMING_BYTES, add)
    try:
        parser = MultiPartParser(request.headers, stream, max_files=limits.max_pictures + 1, max_fields=16)
        form = await parser.parse()
    except MultiPartException as err:
        message = err.message.rstrip(".")
        if message.startswith("Too many files"):
            message = f"it has more than {limits.max_pictures} files, the most per request"
        raise ProblemError("invalid-request", f"the multipart body cannot be read ({message})") from err
    try:
        fields = form.multi_items()
        files = [value for name, value in fields if name == FIELD and isinstance(value, UploadFile)]
        if not files or len(files) != len(fields):
            found = ", ".join(f"'{name}'" + ("" if isinstance(it, UploadFile) else " (text)") for name, it in fields)
            raise ProblemError(
                "invalid-request",
                f"the form must hold files in fields named '{FIELD}' and nothing else, got {found or 'none'}; options "
                "are given in the address, like ?top_k=5",
            )
        return Sent([await file.read() for file in files], is_list=len(files) > 1)
    finally:
        await form.close()


def parse_json(body: bytes, wanted: str) -> Any:
    """Return the value of a JSON body; `wanted` says in a sentence what to send instead.

    Raises:
        ProblemError: It is no JSON, is nested too deeply, or has too many values.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) > _MOST_VALUES:  # each value but the first follows one of these
        raise ProblemError(
            "too-large", f"the JSON has more than {_MOST_VALUES:,} values; send less at once, or send it in binary form"
        )
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as err:
        raise ProblemError("invalid-request", f"the body is not JSON ({str(err)[:100]}); {wanted}") from err


def _read_json(body: bytes) -> Sent:
    wanted = 'send {"image": "BASE64"} or {"images": ["BASE64", ...]}'
    page = parse_json(body, wanted)
    if not isinstance(page, dict) or list(page) not in (["image"], ["images"]):
        found = ", ".join(map(repr, page)) if isinstance(page, dict) else f"a {type(page).__name__}"
        raise ProblemError(
            "invalid-request", f"the JSON has {found[:200] or 'no field'}; {wanted}. No address is ever fetched"
        )
    if "image" in page:
        return Sent([decode_base64(page["image"], "image")])
    pictures = page["images"]
    if not isinstance(pictures, list) or not pictures:
        raise ProblemError("invalid-request", f"'images' is not a list with pictures; {wanted}")
    return Sent([decode_base64(text, f"images[{place}]") for place, text in enumerate(pictures)], is_list=True)


def decode_base64(text: Any, name: str) -> bytes:
    """Return the bytes that a value of a JSON body has in base64; the error calls it `name`.

    Raises:
        ProblemError: It is no base64.
    """
    if isinstance(text, str):
        with contextlib.suppress(binascii.Error, ValueError):
            return base64.b64decode("".join(text.split()), validate=True)
    raise ProblemError(
        "invalid-request", f"'{name}' is not base64; encode the file's bytes as in `base64 -w0 picture.jpg`"
    )


def _too_large(what: str, limit: str, limits: Limits) -> ProblemError:
    most = limits.max_bytes if limit == "max_mib" else limits.max_request_bytes
    return ProblemError(
        "too-large",
        f"{what}, over the limit of {most:,}; send a smaller one, or raise --{limit.replace('_', '-')}",
        limit,
        limits,
    )
