"""Errors of the endpoint as RFC 9457 problems: a type, a status, one sentence, and the limit that was met."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from cluster.serve.options import Limits

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 1
"""Seconds after which a busy endpoint may be asked again."""
RETRY: Final = {"retry-after": str(RETRY_AFTER_S)}
"""Header of a response that asks for another attempt."""

Kind = Literal[
    "malformed-request",
    "unauthorized",
    "no-such-page",
    "method-not-allowed",
    "upload-too-slow",
    "too-large",
    "unsupported-type",
    "picture-refused",
    "invalid-request",
    "fault",
    "busy",
    "too-late",
]

TITLES: Final[dict[Kind, tuple[int, str]]] = {
    "malformed-request": (400, "The request ended before it was complete"),
    "unauthorized": (401, "A token is needed"),
    "no-such-page": (404, "There is no such page"),
    "method-not-allowed": (405, "The page does not take this method"),
    "upload-too-slow": (408, "The request arrived too slowly"),
    "too-large": (413, "The request or a picture is over a limit"),
    "unsupported-type": (415, "The content type is not supported"),
    "picture-refused": (422, "The picture cannot be decoded"),
    "invalid-request": (422, "The request is not of the form that the page takes"),
    "fault": (500, "The endpoint failed"),
    "busy": (503, "The endpoint is busy"),
    "too-late": (504, "The answer was not ready in time"),
}
"""Status and title of each kind of problem."""


class Limit(BaseModel):
    """The limit that a request met, by its name among the options."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    value: float


class ProblemPage(BaseModel):
    """The body of an error, as in RFC 9457."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str
    """urn:shardline:KIND; programs tell errors apart by it."""
    title: str
    """The same for each problem of this type."""
    status: int
    """Status of the response."""
    detail: str
    """One sentence: what is wrong, and what to do."""
    limit: Limit | None = None
    """The limit that was met: `name` and `value`."""
    request_id: str | None = None
    """The id under which the endpoint's log has the request."""

    def describe(self) -> dict[str, Any]:
        """Return the body as JSON."""
        return self.model_dump(exclude_none=True)


class ProblemError(Exception):
    """A request that gets an error.

    Args:
        kind: What kind of error; it sets the status.
        detail: One sentence.
        limit: Name of the limit that was met, a field of `Limits`.
        limits: The limits, if one was met.
        headers: More headers of the response.
    """

    def __init__(
        self,
        kind: Kind,
        detail: str,
        limit: str | None = None,
        limits: Limits | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.title = TITLES[kind]
        self.kind, self.detail, self.headers = kind, detail, dict(headers or {})
        self.limit = Limit(name=limit, value=getattr(limits, limit)) if limit and limits else None

    def make_page(self, request_id: str | None = None) -> ProblemPage:
        """Return the body of the response."""
        return ProblemPage(
            type=f"urn:shardline:{self.kind}",
            title=self.title,
            status=self.status,
            detail=self.detail,
            limit=self.limit,
            request_id=request_id,
        )
