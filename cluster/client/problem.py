"""What an endpoint says when it does not answer, and the errors that carry it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from shards.errors import ShardError, UsageError

_URN: Final = "urn:shardline:"
_OF_PICTURE: Final = ("picture-refused", "too-large", "unsupported-type")
_OF_PICTURE_STATUS: Final = (413, 415, 422)
"""Of endpoints that name no kind."""
BUSY: Final = "busy"


@dataclass(frozen=True)
class Limit:
    """The limit that a request met, by the name of the endpoint's option."""

    name: str
    value: float


@dataclass(frozen=True)
class Problem:
    """A problem of RFC 9457."""

    status: int
    detail: str
    """One sentence: what is wrong, and what to do."""
    kind: str = ""
    """For example picture-refused, too-large, unauthorized; empty if the endpoint names none."""
    limit: Limit | None = None
    request_id: str | None = None
    """The id under which the endpoint's log has the request."""

    @property
    def is_of_the_picture(self) -> bool:
        """Whether another picture would have been answered."""
        return self.kind in _OF_PICTURE if self.kind else self.status in _OF_PICTURE_STATUS


class PictureRefusedError(ShardError):
    """The endpoint refuses this picture; the message is the endpoint's."""

    def __init__(self, message: str, problem: Problem | None = None) -> None:
        super().__init__(message)
        self.problem = problem


class RequestRefusedError(UsageError):
    """The endpoint refuses a request for what was asked, whatever the picture: a token or an option is wrong."""

    def __init__(self, message: str, problem: Problem | None = None) -> None:
        super().__init__(message)
        self.problem = problem


class EndpointError(ConnectionError):
    """The endpoint failed, stays busy, or breaks connections; `problem` is what it said last, if anything."""

    def __init__(self, message: str, problem: Problem | None = None) -> None:
        super().__init__(message)
        self.problem = problem


def read_problem(page: Any, status: int) -> Problem | None:
    """Return the problem that a page of JSON describes; None if it describes none.

    >>> read_problem({"type": "urn:shardline:busy", "detail": "the replica is busy"}, 503).kind
    'busy'
    """
    if not isinstance(page, Mapping) or not isinstance(page.get("detail"), str):
        return None
    limit = page.get("limit")
    return Problem(
        status=status,
        detail=page["detail"],
        kind=str(page.get("type", "")).removeprefix(_URN),
        limit=Limit(str(limit.get("name")), float(limit.get("value", 0))) if isinstance(limit, Mapping) else None,
        request_id=page.get("request_id"),
    )


def make_error(url: str, problem: Problem) -> PictureRefusedError | RequestRefusedError | EndpointError:
    """Return the error for a problem that waiting does not cure."""
    if problem.is_of_the_picture:
        return PictureRefusedError(problem.detail, problem)
    if 400 <= problem.status < 500 and problem.kind != "upload-too-slow":
        return RequestRefusedError(f"{url} refuses the request: {problem.detail}", problem)
    return EndpointError(f"{url} answers with status {problem.status}: {problem.detail}", problem)
