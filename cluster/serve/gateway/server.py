"""The gRPC server: every call is asked under /v2, and what comes back is its answer or its status."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import grpc
import httpx
from google.protobuf.message import DecodeError

from cluster.serve.auth import KEY_HEADER, Tokens, parse_auth
from cluster.serve.body import Held, describe_late_upload
from cluster.serve.gateway.convert import RequestError, read_metadata, read_response, write_request
from cluster.serve.gateway.messages import REQUESTS, RESPONSES, SERVICE
from cluster.serve.options import ServeOptions
from cluster.serve.problem import ProblemError
from cluster.serve.v1 import CLIENT_HEADER
from cluster.serve.v2.errors import ROOT, find_status, make_refusal
from shards.errors import UsageError

logger = logging.getLogger(__name__)

_STATUSES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""HTTP's statuses as gRPC's; others are faults."""
_HANDED_ON: Final = ("authorization", KEY_HEADER, CLIENT_HEADER, "x-request-id")
"""Metadata of a call that are headers of its request."""
_AROUND: Final = 1 << 20
"""Bytes of a message around the pictures of a request."""
_MORE_S: Final = 10.0
"""Seconds that an answer may take beside its limits: HTTP itself says what is too late."""
_GRACE_S: Final = 5.0
_MOST_NAME: Final = 101
"""Characters of a name that are asked for: one more than a model's may have, so that a longer one is not there."""


class Gateway:
    """The calls of the protocol.

    Args:
        url: Where the endpoint's HTTP answers.
        options: The endpoint's limits.
    """

    def __init__(self, url: str, options: ServeOptions) -> None:
        timeout_s = options.max_upload_s + options.max_wait_s + _MORE_S
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=options.max_waiting)
        self._http = httpx.AsyncClient(base_url=url, timeout=timeout_s, limits=limits, trust_env=False)
        path = parse_auth(options.auth)
        self._options, self._held, self._tokens = options, Held(options), Tokens(path) if path else None
        self._calls: dict[str, Callable[[Any, Any], Awaitable[Any]]] = {
            "ServerLive": self._answer_live,
            "ServerReady": self._answer_ready,
            "ModelReady": self._answer_model_ready,
            "ServerMetadata": self._describe_server,
            "ModelMetadata": self._describe_model,
            "ModelInfer": self._infer,
        }

    def list_handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """Return what gRPC calls, by the names of the protocol's calls."""
        return {
            # One of streams takes its message itself, and so knows when it does not come; on the wire both are alike.
            name: grpc.stream_unary_rpc_method_handler(partial(self._answer, name))
            for name in self._calls
        }

    async def close(self) -> None:
        await self._http.aclose()

    async def _answer(self, name: str, messages: AsyncIterator[bytes], context: Any) -> bytes:
        """Return the bytes of the answer to a call, or end it by an error; pictures are only taken with a token."""
        metadata: tuple[tuple[str, str], ...] = ()
        try:
            if self._tokens and name == "ModelInfer":
                await self._check_token(self._tokens, context)
            with self._held.count() as add:
                data = await self._receive(messages)
                add(len(data))
                response = await self._calls[name](REQUESTS[name].FromString(data), context)
                return bytes(response.SerializeToString())
        except ProblemError as problem:
            code = _STATUSES.get(find_status(problem.kind), grpc.StatusCode.INTERNAL)
            sentence = problem.detail
            metadata = _find_wait(problem.headers)
        except DecodeError as err:
            code, sentence = grpc.StatusCode.INVALID_ARGUMENT, f"the message is not a {name}Request ({err})"
        except grpc.aio.AbortError:
            raise
        except Exception as err:
            logger.exception("a call of %s failed", name)
            code, sentence = grpc.StatusCode.INTERNAL, f"gRPC failed on this call ({type(err).__name__}); see its log"
        await context.abort(code, sentence, metadata)
        raise AssertionError  # abort has raised

    async def _check_token(self, tokens: Tokens, context: Any) -> None:
        """Refuse a call without a token; HTTP is asked in its place, without a picture, so that it counts and logs it.

        Raises:
            ProblemError: There is none, or a wrong one.
        """
        try:
            tokens.check(_read_headers(context))
        except ProblemError:
            await self._ask("POST", f"{_find('', '')}/infer", context)
            raise

    async def _receive(self, messages: AsyncIterator[bytes]) -> bytes:
        try:
            async with asyncio.timeout(self._options.max_upload_s):
                return await anext(messages)
        except TimeoutError as err:
            raise describe_late_upload(self._options) from err
        except StopAsyncIteration as err:
            raise make_refusal("the call ended without a message; send one") from err

    async def _answer_live(self, _message: Any, context: Any) -> Any:
        return RESPONSES["ServerLive"](live=await self._is_good("/health/live", context))

    async def _answer_ready(self, _message: Any, context: Any) -> Any:
        return RESPONSES["ServerReady"](ready=await self._is_good("/health/ready", context))

    async def _answer_model_ready(self, message: Any, context: Any) -> Any:
        return RESPONSES["ModelReady"](
            ready=await self._is_good(f"{_find(message.name, message.version)}/ready", context)
        )

    async def _describe_server(self, _message: Any, context: Any) -> Any:
        page = (await self._get("", context)).json()
        return RESPONSES["ServerMetadata"](name=page["name"], version=page["version"], extensions=page["extensions"])

    async def _describe_model(self, message: Any, context: Any) -> Any:
        return read_metadata((await self._get(_find(message.name, message.version), context)).json())

    async def _infer(self, message: Any, context: Any) -> Any:
        try:
            headers, body = write_request(message)
        except RequestError as err:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(err))
        path = f"{_find(message.model_name, message.model_version)}/infer"
        answer = await self._ask("POST", path, context, headers=headers, content=body)
        await _refuse_unless_good(answer, context)
        return read_response(answer.headers, answer.content)

    async def _is_good(self, path: str, context: Any) -> bool:
        """Say whether a page answers; a token that is missing or wrong is an error."""
        answer = await self._ask("GET", path, context)
        if answer.status_code == 401:
            await _refuse_unless_good(answer, context)
        return answer.status_code == 200

    async def _get(self, path: str, context: Any) -> httpx.Response:
        answer = await self._ask("GET", path, context)
        await _refuse_unless_good(answer, context)
        return answer

    async def _ask(self, method: str, path: str, context: Any, **more: Any) -> httpx.Response:
        """Send a request with the metadata of a call; where nothing answers, the call is to be sent again."""
        headers = {**_read_headers(context), **more.pop("headers", {})}
        try:
            return await self._http.request(method, f"{ROOT}{path}", headers=headers, **more)
        except httpx.TransportError as err:
            sentence = f"the endpoint does not answer ({type(err).__name__}); send this request again"
            await context.abort(grpc.StatusCode.UNAVAILABLE, sentence)
            raise AssertionError from err  # abort has raised


def _read_headers(context: Any) -> dict[str, str]:
    """Return the metadata of a call that its request has as headers."""
    return {name: value for name, value in context.invocation_metadata() or () if name in _HANDED_ON}


def _find(model: str, version: str) -> str:
    """Return the path of a model under /v2.

    >>> _find("shardline", ""), _find("a/b", "1")
    ('/models/shardline', '/models/a%2Fb/versions/1')
    >>> _find("..", "1.0")
    '/models/%2E%2E/versions/1%2E0'
    """
    path = f"/models/{_spell(model) or '-'}"
    return f"{path}/versions/{_spell(version)}" if version else path


def _spell(name: str) -> str:
    """Return a name as one part of a path; dots alone would be a step upwards."""
    return quote(name[:_MOST_NAME], safe="").replace(".", "%2E")


def _find_wait(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the metadata that say when to ask again, if headers do."""
    return (("retry-after", headers["retry-after"]),) if "retry-after" in headers else ()


async def _refuse_unless_good(answer: httpx.Response, context: Any) -> None:
    """End the call with the status and the sentence of an error."""
    if answer.status_code != 200:
        code = _STATUSES.get(answer.status_code, grpc.StatusCode.INTERNAL)
        await context.abort(code, _read_sentence(answer), _find_wait(answer.headers))


def _read_sentence(answer: httpx.Response) -> str:
    """Return what an error says: under /v2 as `error`, and in front of it, in HAProxy or Ray, as a problem or text."""
    try:
        page = answer.json()
        return str(page.get("error") or page.get("detail") or page)
    except (ValueError, AttributeError):
        return answer.text[:500] or f"HTTP status {answer.status_code}"


@contextmanager
def run_gateway(url: str, host: str, port: int, options: ServeOptions) -> Iterator[None]:
    """Answer gRPC at `host`:`port` while the block runs, from a thread.

    Raises:
        UsageError: The port cannot be listened on.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="grpc", daemon=True)
    thread.start()

    def run(task: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(task, loop).result()

    try:
        gateway, server = run(_start(url, host, port, options))
        try:
            yield
        finally:
            run(server.stop(_GRACE_S))
            run(gateway.close())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _start(url: str, host: str, port: int, options: ServeOptions) -> tuple[Gateway, grpc.aio.Server]:
    gateway = Gateway(url, options)
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", options.max_request_bytes + _AROUND),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # another program's port is an error
        ],
        maximum_concurrent_rpcs=options.max_connections,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, gateway.list_handlers()),))
    at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        server.add_insecure_port(at)
    except RuntimeError as err:
        await gateway.close()
        raise UsageError(f"gRPC cannot listen on {at}; choose another port with --grpc-port") from err
    await server.start()
    return gateway, server
