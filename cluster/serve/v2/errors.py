"""Errors of the pages under /v2, in the form that clients of the protocol read."""

from __future__ import annotations

from typing import Final

from fastapi.responses import JSONResponse
from pydantic import BaseModel

from cluster.serve.problem import TITLES, Kind, ProblemError

ROOT: Final = "/v2"
_STATUSES: Final[dict[Kind, int]] = {"invalid-request": 400}
"""Where the protocol has another status than RFC 9457 problems."""


class ErrorPage(BaseModel):
    """The body of an error."""

    error: str
    """One sentence: what is wrong, and what to do."""


def is_own(path: str) -> bool:
    """Say whether a page, or a path without one, is of the protocol.

    >>> is_own("/v2"), is_own("/v2/models"), is_own("/v20")
    (True, True, False)
    """
    return f"{path}/".startswith(f"{ROOT}/")


def find_status(kind: Kind) -> int:
    """Return the status of a kind of problem on these pages."""
    return _STATUSES.get(kind, TITLES[kind][0])


def write_error(problem: ProblemError) -> JSONResponse:
    """Return the response for a problem."""
    page = ErrorPage(error=problem.detail).model_dump()
    return JSONResponse(page, find_status(problem.kind), headers=problem.headers)


def make_refusal(sentence: str) -> ProblemError:
    """Return the error of a request that is not of the protocol's form."""
    return ProblemError("invalid-request", sentence)
