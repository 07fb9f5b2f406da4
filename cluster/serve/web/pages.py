"""The page at /, the documentation at /docs, and the files that they load; nothing comes from outside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import PurePath
from typing import Final

from fastapi import Request, Response
from fastapi.responses import HTMLResponse

from cluster.serve.page import Endpoint, Page
from cluster.serve.web.docs import write_docs

_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
"""The browser asks this endpoint alone, runs no script that stands in a page, and shows it in no other site."""
_FOLDER = files("cluster.serve.web")


def _give(name: str) -> Callable[[Endpoint, Request], Awaitable[Response]]:
    """Return the answer of a page that is a file of this room."""
    content, media_type = (_FOLDER / name).read_bytes(), _TYPES[PurePath(name).suffix]

    async def answer(_endpoint: Endpoint, _request: Request) -> Response:
        return Response(content, media_type=media_type, headers=HEADERS)

    return answer


async def _show_docs(endpoint: Endpoint, request: Request) -> HTMLResponse:
    return HTMLResponse(write_docs(request.app.state.pages, endpoint.limits), headers=HEADERS)


def _list_parts() -> list[str]:
    """Return the names of the files that the pages load."""
    names = sorted(file.name for file in _FOLDER.iterdir())
    return [name for name in names if PurePath(name).suffix in _TYPES.keys() - {".html"}]


PAGES = (
    Page("GET", "/", _give("page.html"), "Ask about a picture in the browser", gives=HTMLResponse, is_open=True),
    Page("GET", "/docs", _show_docs, "This documentation", gives=HTMLResponse, is_open=True),
    *(Page("GET", f"/web/{name}", _give(name), gives=Response, is_open=True, is_part=True) for name in _list_parts()),
)
