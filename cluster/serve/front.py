"""What stands before the pages: tokens, counts, and a log of requests."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from cluster.serve.auth import Tokens, parse_auth
from cluster.serve.options import Front
from cluster.serve.page import Endpoint, Page
from cluster.serve.problem import ProblemError

_OK: Final = "ok"


class AccessLog:
    """A file with one JSON line for each request, without its content: no bytes, no names, no query."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115, open as long as the replica lives

    def write(self, request: Request, page: Page, outcome: str, seconds: float) -> None:
        """Add a request; lines are short enough to be appended whole, even by several replicas."""
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": request.headers.get("x-request-id"),
            "client": request.client.host if request.client else None,
            "method": request.method,
            "page": page.path,
            "outcome": outcome,
            "ms": round(seconds * 1e3, 1),
            "bytes": request.headers.get("content-length"),
        }
        self._file.write(json.dumps(line) + "\n")


class Gate:
    """Lets requests pass to their pages: checks their tokens, and counts and logs them.

    Raises:
        UsageError: The file of tokens cannot be read.
        OSError: The log cannot be written.
    """

    def __init__(self, endpoint: Endpoint, front: Front) -> None:
        path = parse_auth(front.auth)
        self._endpoint = endpoint
        self._tokens = Tokens(path) if path else None
        self._log = AccessLog(Path(front.access_log)) if front.access_log else None

    def bind(self, page: Page) -> Callable[[Request], Awaitable[Any]]:
        """Return the function that answers a page's requests."""
        self._endpoint.start_requests(page.path, [_OK, *page.problems])

        async def answer(request: Request) -> Any:
            began, outcome = time.perf_counter(), "fault"
            try:
                if self._tokens and not page.is_open:
                    self._tokens.check(request.headers)
                given = await page.answer(self._endpoint, request)
                outcome = _OK if not isinstance(given, Response) or given.status_code < 400 else str(given.status_code)
                return given
            except ProblemError as problem:
                outcome = problem.kind
                raise
            except ClientDisconnect:
                outcome = "left"
                raise
            finally:
                seconds = time.perf_counter() - began
                self._endpoint.count_request(page.path, outcome, seconds * 1e3)
                if self._log:
                    self._log.write(request, page, outcome, seconds)

        return answer
