"""The pages under /v1, and those that tell whether the endpoint lives and answers."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from cluster.serve.answer import Prediction, Wishes, read_wishes
from cluster.serve.body import FIELD, read_pictures
from cluster.serve.page import Endpoint, Page
from cluster.serve.problem import RETRY, ProblemError, ProblemPage

CLIENT_HEADER = "x-client-key"
"""Requests with the same value are answered by the same bundle while another one is tried."""
_BASE64 = {"type": "string", "contentEncoding": "base64"}
_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}}
_BODY = {
    "required": True,
    "content": {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {"schema": {"type": "object", "required": [FIELD], "properties": {FIELD: _FILES}}},
        "application/json": {
            "schema": {
                "oneOf": [
                    {
                        "type": "object",
                        "required": ["image"],
                        "properties": {"image": _BASE64},
                        "additionalProperties": False,
                    },
                    {
                        "type": "object",
                        "required": ["images"],
                        "properties": {"images": {"type": "array", "items": _BASE64, "minItems": 1}},
                        "additionalProperties": False,
                    },
                ]
            }
        },
    },
}


async def _predict(endpoint: Endpoint, request: Request) -> JSONResponse:
    wishes = read_wishes(request.query_params)
    sent = await read_pictures(request, endpoint.limits, endpoint.held)
    answers = await endpoint.predict_all(sent.pictures, wishes, request.headers.get(CLIENT_HEADER))
    if sent.is_list:
        return JSONResponse([_describe(answer) for answer in answers])
    if isinstance(answers[0], ProblemError):
        raise answers[0]
    return JSONResponse(answers[0].describe())


def _describe(answer: Prediction | ProblemError) -> dict[str, Any]:
    return answer.make_page().describe() if isinstance(answer, ProblemError) else answer.describe()


async def _describe_model(endpoint: Endpoint, _: Request) -> dict[str, Any]:
    return endpoint.describe_model()


async def _describe_stats(endpoint: Endpoint, _: Request) -> dict[str, Any]:
    return endpoint.describe_stats()


async def _answer_healthy(_endpoint: Endpoint, _request: Request) -> dict[str, str]:
    return {"status": "ok"}


async def _answer_ready(endpoint: Endpoint, _: Request) -> dict[str, str]:
    if not endpoint.is_ready:
        raise ProblemError("busy", "the bundle is still being loaded; ask again in a few seconds", headers=RETRY)
    return {"status": "ready"}


PAGES = (
    Page(
        "POST",
        "/v1/predict",
        _predict,
        "Classify one picture, or several",
        gives=Prediction | list[Prediction | ProblemPage],
        takes=_BODY,
        query=Wishes,
        problems=(
            "malformed-request",
            "upload-too-slow",
            "too-large",
            "unsupported-type",
            "invalid-request",
            "fault",
            "busy",
            "too-late",
        ),
    ),
    Page("GET", "/v1/model", _describe_model, "What is served: classes, preprocessing, decision, metrics, limits"),
    Page("GET", "/v1/stats", _describe_stats, "Pictures and batches of the replica that answers, since it started"),
    Page("GET", "/healthz", _answer_healthy, "Whether the endpoint lives", gives=dict[str, str], is_open=True),
    Page(
        "GET",
        "/readyz",
        _answer_ready,
        "Whether a bundle is loaded and answers",
        gives=dict[str, str],
        problems=("busy",),
        is_open=True,
    ),
)
