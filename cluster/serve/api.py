"""The HTTP pages of the endpoint; every error is JSON of the form {"error": "sentence"}."""

from __future__ import annotations

from typing import Any, Protocol

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from cluster.serve.body import FIELD, read_picture
from shards.errors import DecodeError
from trainer.contract.decision.decision import Answer

_PAGES = "POST /v1/predict, GET /v1/model, GET /v1/stats and GET /healthz"
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
    """The answer for one picture, and which bundle gave it."""

    bundle: str
    """Fingerprint of the bundle."""


class Endpoint(Protocol):
    """What the pages need of the replica that they run in."""

    max_bytes: int

    async def predict(self, data: bytes) -> Prediction: ...

    def describe_model(self) -> dict[str, Any]: ...

    def describe_stats(self) -> dict[str, Any]: ...


def build_api(endpoint: Endpoint) -> FastAPI:
    """Return the application whose pages `endpoint` answers."""
    api = FastAPI(title="Shardline endpoint", exception_handlers=_handlers())

    @api.post("/v1/predict", openapi_extra={"requestBody": _BODY}, response_model=Prediction)
    async def predict(request: Request) -> JSONResponse:
        prediction = await endpoint.predict(await read_picture(request, endpoint.max_bytes))
        return JSONResponse(prediction.describe())

    @api.get("/v1/model")
    async def model() -> dict[str, Any]:
        return endpoint.describe_model()

    @api.get("/v1/stats")
    async def stats() -> dict[str, Any]:
        return endpoint.describe_stats()

    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return api


def _handlers() -> dict[int | type[Exception], Any]:
    return {
        StarletteHTTPException: _answer_http_error,
        RequestValidationError: _answer_invalid,
        DecodeError: _answer_refused_picture,
        Exception: _answer_fault,
    }


async def _answer_http_error(request: Request, err: HTTPException) -> JSONResponse:
    sentences = {
        404: f"there is no page {request.url.path}; the endpoint has {_PAGES}",
        405: f"{request.method} is not possible at {request.url.path}; the endpoint has {_PAGES}",
    }
    return _say(err.status_code, sentences.get(err.status_code, str(err.detail)), err.headers)


async def _answer_invalid(_: Request, err: RequestValidationError) -> JSONResponse:
    return _say(422, f"the request is not valid ({err.errors()[0]['msg']})")


async def _answer_refused_picture(_: Request, err: DecodeError) -> JSONResponse:
    return _say(422, str(err))


async def _answer_fault(_: Request, err: Exception) -> JSONResponse:
    return _say(500, f"the endpoint failed on this request ({type(err).__name__}); its log says more")


def _say(status: int, sentence: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": sentence}, status, headers=headers)
