"""The HTTP pages of the endpoint; every error is JSON of the form {"error": "sentence"}."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from cluster.serve.body import FIELD, read_picture
from shards.errors import DecodeError
from trainer.contract.decision.decision import Answer

_BODY = {
    "required": True,
    "content": {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {"type": "object", "properties": {FIELD: {"type": "string", "format": "binary"}}}
        },
    },
}


class Prediction(Answer):
    """The answer for one picture, and the bundle that gave it."""

    bundle: str
    """Fingerprint of the bundle."""


class Endpoint(Protocol):
    """What the pages need from their replica."""

    max_bytes: int

    async def predict(self, data: bytes) -> Prediction: ...

    def describe_model(self) -> dict[str, Any]: ...

    def describe_stats(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Page:
    """A page of the endpoint."""

    method: Literal["GET", "POST"]
    path: str
    answer: Callable[[Endpoint, Request], Awaitable[Any]]
    """Returns the response, as JSON: a dict, or a response object."""
    gives: Any = dict[str, Any]
    """Type of the response, for /openapi.json."""
    takes: dict[str, Any] | None = None
    """Body of the request, for /openapi.json."""


async def _predict(endpoint: Endpoint, request: Request) -> JSONResponse:
    prediction = await endpoint.predict(await read_picture(request, endpoint.max_bytes))
    return JSONResponse(prediction.describe())


async def _describe_model(endpoint: Endpoint, _: Request) -> dict[str, Any]:
    return endpoint.describe_model()


async def _describe_stats(endpoint: Endpoint, _: Request) -> dict[str, Any]:
    return endpoint.describe_stats()


async def _answer_healthy(_endpoint: Endpoint, _request: Request) -> dict[str, str]:
    return {"status": "ok"}


PAGES = (
    Page("POST", "/v1/predict", _predict, gives=Prediction, takes=_BODY),
    Page("GET", "/v1/model", _describe_model),
    Page("GET", "/v1/stats", _describe_stats),
    Page("GET", "/healthz", _answer_healthy, gives=dict[str, str]),
)


def build_api(endpoint: Endpoint) -> FastAPI:
    """Return the application; `endpoint` answers its pages."""
    api = FastAPI(title="Shardline endpoint", exception_handlers=_handlers())
    for page in PAGES:
        api.add_api_route(
            page.path,
            _bind(page, endpoint),
            methods=[page.method],
            name=page.path.rpartition("/")[2],
            response_model=page.gives,
            openapi_extra={"requestBody": page.takes} if page.takes else None,
        )
    return api


def _bind(page: Page, endpoint: Endpoint) -> Callable[[Request], Awaitable[Any]]:
    async def answer(request: Request) -> Any:
        return await page.answer(endpoint, request)

    return answer


def _handlers() -> dict[int | type[Exception], Any]:
    return {
        StarletteHTTPException: _answer_http_error,
        DecodeError: _answer_refused_picture,
        Exception: _answer_fault,
    }


async def _answer_http_error(request: Request, err: HTTPException) -> JSONResponse:
    *others, last = (f"{page.method} {page.path}" for page in PAGES)
    pages = f"the endpoint has {', '.join(others)} and {last}"
    sentences = {
        404: f"there is no page {request.url.path}; {pages}",
        405: f"{request.method} is not possible at {request.url.path}; {pages}",
    }
    return _answer_error(err.status_code, sentences.get(err.status_code, str(err.detail)), err.headers)


async def _answer_refused_picture(_: Request, err: DecodeError) -> JSONResponse:
    return _answer_error(422, str(err))


async def _answer_fault(_: Request, err: Exception) -> JSONResponse:
    return _answer_error(500, f"the endpoint failed on this request ({type(err).__name__}); see its log")


def _answer_error(status: int, sentence: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": sentence}, status, headers=headers)
