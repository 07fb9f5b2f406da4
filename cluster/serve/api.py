"""The HTTP application of a replica: its pages, and errors as problems of RFC 9457 or in the form of /v2."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

from cluster.serve import v1
from cluster.serve.front import Gate
from cluster.serve.options import Front
from cluster.serve.page import Endpoint, Page
from cluster.serve.problem import MEDIA_TYPE, TITLES, ProblemError, ProblemPage
from cluster.serve.v2 import errors as v2_errors
from cluster.serve.v2 import pages as v2
from cluster.serve.web import pages as web

logger = logging.getLogger(__name__)

ID_HEADER = "x-request-id"
_LEFT = 499  # of nginx: the client has gone; nobody reads the response

PAGES: tuple[Page, ...] = (*v1.PAGES, *v2.PAGES, *web.PAGES)
"""All pages; each module of pages adds its own."""
_OPEN = Front()


def build_api(endpoint: Endpoint, front: Front = _OPEN) -> FastAPI:
    """Return the application; `endpoint` answers its pages.

    Raises:
        UsageError: The file of tokens cannot be read.
        OSError: The log of requests cannot be written.
    """
    api = FastAPI(
        title="Shardline endpoint",
        exception_handlers=_handlers(),
        docs_url=None,
        redoc_url=None,
        servers=[{"url": front.root_path}] if front.root_path else None,
    )
    if front.allow_origin:
        api.add_middleware(CORSMiddleware, allow_origins=[front.allow_origin], allow_methods=["*"], allow_headers=["*"])
    gate = Gate(endpoint, front)
    api.state.pages = [page for page in PAGES if front.page or page not in web.PAGES]
    for page in api.state.pages:
        _add(api, page, gate.bind(page))
    return api


def _add(api: FastAPI, page: Page, answer: Callable[[Request], Awaitable[Any]]) -> None:
    is_json = not (isinstance(page.gives, type) and issubclass(page.gives, Response))
    api.add_api_route(
        page.path,
        answer,
        methods=[page.method],
        name=page.path.rpartition("/")[2] or "page",
        summary=page.summary or None,
        response_model=page.gives if is_json else None,
        response_class=JSONResponse if is_json else page.gives,
        include_in_schema=not page.is_part,
        responses=_describe_problems(page),
        openapi_extra=_describe_request(page),
    )
    if page.method == "GET":
        api.add_api_route(page.path, answer, methods=["HEAD"], include_in_schema=False)


def _describe_request(page: Page) -> dict[str, Any] | None:
    """Return the body, the options and the parts of the address that a page takes, for /openapi.json."""
    said: dict[str, Any] = {"requestBody": page.takes} if page.takes else {}
    schema = page.query.model_json_schema()["properties"] if page.query else {}
    options = [{"name": name, "in": "query", "schema": each} for name, each in schema.items()]
    parts = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", page.path)
    ]
    return {**said, "parameters": [*parts, *options]} if parts or options else said or None


def _describe_problems(page: Page) -> dict[int | str, dict[str, Any]]:
    is_v2 = v2_errors.is_own(page.path)
    media_type, form = ("application/json", v2_errors.ErrorPage) if is_v2 else (MEDIA_TYPE, ProblemPage)
    content = {"content": {media_type: {"schema": form.model_json_schema()}}}
    by_status: dict[int | str, list[str]] = {}
    for kind in page.problems:
        status, title = TITLES[kind]
        by_status.setdefault(v2_errors.find_status(kind) if is_v2 else status, []).append(title)
    return {status: {"description": "; ".join(titles), **content} for status, titles in by_status.items()}


def _handlers() -> dict[int | type[Exception], Any]:
    return {
        HTTPException: _answer_http_error,
        ProblemError: _answer_problem,
        ClientDisconnect: _answer_nobody,
        Exception: _answer_fault,
    }


async def _answer_http_error(request: Request, err: HTTPException) -> Response:
    *others, last = (f"{page.method} {page.path}" for page in request.app.state.pages if not page.is_part)
    pages = f"the endpoint has {', '.join(others)} and {last}"
    allow = dict(err.headers or {})
    if err.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        if request.method == "OPTIONS":
            return Response(status_code=HTTPStatus.NO_CONTENT, headers=allow)
        said = f"{request.method} is not possible at {request.url.path}; {pages}"
        return await _answer_problem(request, ProblemError("method-not-allowed", said, headers=allow))
    if err.status_code == HTTPStatus.NOT_FOUND:
        said = f"there is no page {request.url.path[:200]}; {pages}"
        return await _answer_problem(request, ProblemError("no-such-page", said))
    return await _answer_problem(request, ProblemError("malformed-request", str(err.detail), headers=allow))


async def _answer_problem(request: Request, problem: ProblemError) -> Response:
    name = _name_request(request)
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR and problem.kind != "busy":
        logger.error("request %s: %s", name, problem.detail)
    return _write_problem(request, problem, name)


def _write_problem(request: Request, problem: ProblemError, name: str) -> Response:
    """Return a problem in the form that the clients of this page read."""
    if v2_errors.is_own(request.url.path):
        return v2_errors.write_error(problem)
    page = problem.make_page(name).describe()
    return JSONResponse(page, problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


async def _answer_nobody(_: Request, _err: ClientDisconnect) -> Response:
    return Response(status_code=_LEFT)


async def _answer_fault(request: Request, err: Exception) -> Response:
    name = _name_request(request)
    logger.error("request %s failed", name, exc_info=err)
    problem = ProblemError(
        "fault", f"the endpoint failed on this request ({type(err).__name__}); its log has request {name}"
    )
    return _write_problem(request, problem, name)


def _name_request(request: Request) -> str:
    """Return the id of a request: the one that it came with, or a new one."""
    given = request.headers.get(ID_HEADER, "")
    return given if given.isascii() and given.isprintable() and 0 < len(given) <= 100 else uuid.uuid4().hex
