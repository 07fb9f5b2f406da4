"""Reading one picture from a request: raw or multipart, with never more than the limit in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from fastapi import HTTPException, Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

FIELD = "file"
# A request keeps its slot in the replica while its body arrives; a stalled one must not keep it forever.
TIMEOUT_S = 60.0
_MULTIPART = "multipart/form-data"
# The last is the type that `curl --data-binary` sends for any file.
_RAW = ("application/octet-stream", "application/x-www-form-urlencoded")
_FRAMING_BYTES = 64 * 1024  # boundaries and part headers around the picture


async def read_picture(request: Request, max_bytes: int, timeout_s: float = TIMEOUT_S) -> bytes:
    """Return the bytes of the picture in `request`.

    Raises:
        HTTPException: 408 after `timeout_s`, 413 over `max_bytes`, 415 for another content type, 422 for another form.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await _read(request, max_bytes)
    except TimeoutError as err:
        raise HTTPException(408, f"the picture did not arrive within {timeout_s:g} s; send it again") from err


async def _read(request: Request, max_bytes: int) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == _MULTIPART:
        return await _read_file_field(request, max_bytes)
    if kind and not kind.startswith("image/") and kind not in _RAW:
        raise HTTPException(
            415,
            f"content type {kind} is not supported; send the picture as image/*, as application/octet-stream, or as "
            f"multipart/form-data with one field '{FIELD}' (curl -F {FIELD}=@picture.jpg)",
        )
    return b"".join([chunk async for chunk in _stream(request, max_bytes, max_bytes)])


async def _stream(request: Request, limit: int, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """Yield the body; both its announced and its actual size are limited to `limit` bytes."""
    size = int(request.headers.get("content-length", 0))
    if size > limit:
        raise _too_large(f"{size:,}", max_bytes)
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(f"at least {size:,}", max_bytes)
        yield chunk


async def _read_file_field(request: Request, max_bytes: int) -> bytes:
    stream = _stream(request, max_bytes + _FRAMING_BYTES, max_bytes)
    try:
        form = await MultiPartParser(request.headers, stream, max_files=16, max_fields=16).parse()
    except MultiPartException as err:
        raise HTTPException(422, f"the multipart body cannot be read ({err.message.rstrip('.')})") from err
    try:
        data = await _only_file(form).read()
    finally:
        await form.close()
    if len(data) > max_bytes:
        raise _too_large(f"{len(data):,}", max_bytes)
    return data


def _only_file(form: FormData) -> UploadFile:
    fields = form.multi_items()
    if len(fields) == 1 and fields[0][0] == FIELD and isinstance(fields[0][1], UploadFile):
        return fields[0][1]
    found = ", ".join(f"'{name}'" + ("" if isinstance(value, UploadFile) else " (text)") for name, value in fields)
    raise HTTPException(
        422,
        f"the form must hold one file in a field named '{FIELD}', got {found or 'none'}; send one picture per request",
    )


def _too_large(size: str, max_bytes: int) -> HTTPException:
    return HTTPException(
        413,
        f"the picture has {size} bytes, over the limit of {max_bytes:,}; send a smaller one, or raise --max-mib",
    )
