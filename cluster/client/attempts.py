"""A request with its retries as a generator, without input or output: it yields steps, and gets their results.

`Client` and `AsyncClient` do the steps of the same generators, one by blocking, the other by awaiting.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

import httpx

from cluster.client.problem import BUSY, EndpointError, Problem, make_error, read_problem
from shards.errors import UsageError

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 10.0
LONGEST_ASKED_S: Final = 60.0
"""The longest wait that an endpoint's Retry-After is granted."""
_BUSY_STATUS: Final = {429, 503}


@dataclass(frozen=True)
class Send:
    """Send a request; the result is the response, or the error of httpx. Sending a picture twice does no harm."""

    method: str
    path: str
    content: bytes | None = None
    files: list[bytes] | None = None
    """Pictures of a multipart request."""
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Wait:
    """Wait; there is no result."""

    seconds: float


@dataclass(frozen=True)
class Work:
    """Call a function that reads a file or computes for a while; the result is the function's."""

    function: Callable[[], Any]


T = TypeVar("T")
Talk = Generator[Send | Wait | Work, Any, T]
"""A conversation with an endpoint; it returns its result, and raises what steps raise."""


def ask(url: str, send: Send, retries: int) -> Talk[Any]:
    """Return the endpoint's answer as JSON.

    Args:
        url: The endpoint, for messages.
        send: The request.
        retries: Retries if the endpoint is busy, a connection breaks, or a proxy finds no replica.

    Raises:
        PictureRefusedError, RequestRefusedError, EndpointError: As `make_error`.
        EndpointError: All attempts failed, or nothing listens there.
        TimeoutError: There was no answer in time.
        UsageError: It is no Shardline endpoint.
    """
    problem: Problem | None = None
    for attempt in range(retries + 1):
        received: httpx.Response | httpx.RequestError = yield send
        if isinstance(received, httpx.RequestError):
            reason, asked = _explain_broken(url, received), ""
        else:
            page = _read_json(received)
            problem = read_problem(page, received.status_code)
            if not _is_passing(received, page, problem):
                return _take(url, received, page, problem)
            reason = f"is busy or restarting (status {received.status_code})"
            asked = received.headers.get("retry-after", "")
        if attempt < retries:
            yield Wait(choose_wait(attempt, read_retry_after(asked, datetime.now(UTC))))
    raise EndpointError(
        f"{url} {reason}, {retries + 1} times; send fewer pictures at once, or give it more replicas", problem
    )


def _explain_broken(url: str, err: httpx.RequestError) -> str:
    """Return why an attempt had no response; raise what another attempt cannot cure."""
    if isinstance(err, httpx.ConnectError | httpx.ConnectTimeout):
        raise EndpointError(f"no endpoint answers at {url} ({err}); start it, or correct the address") from err
    if isinstance(err, httpx.TimeoutException):
        raise TimeoutError(f"{url} did not answer in time; check its load, or allow more time") from err
    return f"breaks connections ({err})"


def _is_passing(response: httpx.Response, page: Any, problem: Problem | None) -> bool:
    """Return whether a retry may succeed: the endpoint is busy, or a replica died during the request.

    The endpoint's own errors are JSON; those of a proxy for a lost replica are plain text.
    """
    if response.status_code in _BUSY_STATUS or (response.is_error and problem is not None and problem.kind == BUSY):
        return True
    return response.is_server_error and page is None


def _take(url: str, response: httpx.Response, page: Any, problem: Problem | None) -> Any:
    if response.is_success and page is not None:
        return page
    if problem is None:
        raise UsageError(
            f"{response.url.copy_with(query=None)} answers with status {response.status_code}, not as a Shardline "
            "endpoint does; correct the address"
        )
    raise make_error(url, problem)


def _read_json(response: httpx.Response) -> Any:
    """Return a JSON object or list; None if the body is none."""
    try:
        page = response.json()
    except ValueError:
        return None
    return page if isinstance(page, dict | list) else None


def choose_wait(attempt: int, asked_s: float, draw: Callable[[float, float], float] = random.uniform) -> float:
    """Return the seconds until the next attempt: half to all of 0.1 * 2**attempt, at most 10, or longer if asked to.

    Args:
        attempt: Counts from 0.
        asked_s: What the endpoint asks for; up to half as much is added, so that clients do not return together.
        draw: Returns a number between two others.

    >>> [choose_wait(attempt, 0, lambda low, high: high) for attempt in (0, 1, 20)]
    [0.1, 0.2, 10.0]
    >>> choose_wait(0, 4, lambda low, high: low), choose_wait(0, 9e9)
    (4, 60.0)
    """
    own = min(FIRST_WAIT_S * 2.0**attempt, LONGEST_WAIT_S) * draw(0.5, 1)
    return min(max(own, asked_s * draw(1, 1.5)), LONGEST_ASKED_S)


def read_retry_after(text: str, now: datetime) -> float:
    """Return the seconds of a Retry-After header: a number, or an HTTP date; 0 if it is neither or in the past.

    >>> now = datetime(2026, 11, 30, 12, 0, 0, tzinfo=UTC)
    >>> [read_retry_after(text, now) for text in ("3", "Mon, 30 Nov 2026 12:00:05 GMT", "soon", "")]
    [3.0, 5.0, 0.0, 0.0]
    """
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - now).total_seconds())
