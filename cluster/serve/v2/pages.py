"""The pages under /v2: what the server and its model are, whether they are ready, and inference."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from cluster.serve.answer import Prediction, Wishes
from cluster.serve.body import read_body
from cluster.serve.page import Endpoint, Page
from cluster.serve.problem import ProblemError
from cluster.serve.v1 import CLIENT_HEADER
from cluster.serve.v2.errors import ROOT, make_refusal
from cluster.serve.v2.request import HEADER, PICTURE, PREPARED, Asked, parse_request
from cluster.serve.v2.tensors import Produced, make_outputs, read_inputs

VERSION: Final = "1"
"""The only version of the model."""
PLATFORM: Final = "pytorch_shardline"
_MODEL: Final = f"{ROOT}/models/{{name}}"
_VERSIONED: Final = f"{_MODEL}/versions/{{version}}"
_TENSOR: Final = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"enum": [PICTURE, PREPARED]},
        "datatype": {"enum": ["BYTES", "UINT8", "FP32"]},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
        "parameters": {"type": "object", "properties": {"binary_data_size": {"type": "integer"}}},
        "data": {"type": "array"},
    },
}
_SELECTED: Final = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
_BODY: Final = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "properties": {
                    "id": {"type": "string"},
                    "parameters": {"type": "object", "properties": {"binary_data_output": {"type": "boolean"}}},
                    "inputs": {"type": "array", "items": _TENSOR, "minItems": 1, "maxItems": 1},
                    "outputs": {"type": "array", "items": _SELECTED},
                },
            }
        },
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}


async def _describe_server(_endpoint: Endpoint, _request: Request) -> dict[str, Any]:
    version = importlib.metadata.version("shardline")
    return {"name": "shardline", "version": version, "extensions": ["binary_tensor_data"]}


async def _answer_live(_endpoint: Endpoint, _request: Request) -> dict[str, bool]:
    return {"live": True}


async def _answer_ready(endpoint: Endpoint, _: Request) -> dict[str, bool]:
    _check_ready(endpoint)
    return {"ready": True}


async def _answer_model_ready(endpoint: Endpoint, request: Request) -> dict[str, Any]:
    _find_model(endpoint, request)
    return {"name": endpoint.model_name, "ready": True}


async def _describe_model(endpoint: Endpoint, request: Request) -> dict[str, Any]:
    _find_model(endpoint, request)
    page = endpoint.describe_model()
    preprocess, decision = page["preprocess"], page["decision"]
    image = [preprocess["channels"], preprocess["size"], preprocess["size"]]
    # The protocol's parameters are single values, so that the class names are a list in the text of one.
    rows = {"shape": [-1, len(page["classes"])], "parameters": {"classes": json.dumps(page["classes"])}}
    outputs = [
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", **rows},
        {"name": "logits", "datatype": "FP32", **rows},
    ]
    if "fitted" in decision:
        outputs.append({"name": "abstain", "datatype": "BOOL", "shape": [-1]})
        if "ood" in decision:
            outputs.append({"name": "ood_score", "datatype": "FP32", "shape": [-1]})
    return {
        "name": endpoint.model_name,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": [
            {"name": PICTURE, "datatype": "BYTES", "shape": [-1]},
            {"name": PREPARED, "datatype": "UINT8", "shape": [-1, *image]},
        ],
        "outputs": outputs,
    }


async def _infer(endpoint: Endpoint, request: Request) -> Response:
    _find_model(endpoint, request)
    coding = request.headers.get("content-encoding", "identity")
    if coding != "identity":
        sentence = f"content encoding {coding[:50]!r} is not supported; send the body without one"
        raise ProblemError("unsupported-type", sentence)
    body = await read_body(request, endpoint.limits, endpoint.held)
    asked = parse_request(body, request.headers.get(HEADER))
    pictures = read_inputs(asked.tensor, endpoint.limits)
    answers = await endpoint.predict_all(pictures, Wishes(), request.headers.get(CLIENT_HEADER))
    for place, answer in enumerate(answers):
        if isinstance(answer, ProblemError):  # the protocol has no answer for single elements
            sentence = f"{asked.tensor.name}[{place}]: {answer.detail}"
            raise ProblemError(answer.kind, sentence, headers=answer.headers) from answer
    return write_response(endpoint.model_name, asked, cast(Sequence[Prediction], answers))


def _find_model(endpoint: Endpoint, request: Request) -> None:
    """Check that the model and the version in the address are there, and that the model is loaded.

    Raises:
        ProblemError: They are not.
    """
    name, version = (request.path_params.get(part) for part in ("name", "version"))
    if name != endpoint.model_name:
        sentence = f"there is no model {str(name)[:100]!r}; the endpoint has {endpoint.model_name!r}"
        raise ProblemError("no-such-page", sentence)
    if version not in (None, VERSION):
        sentence = f"the model {name} has no version {str(version)[:100]!r}; it has {VERSION!r} alone"
        raise ProblemError("no-such-page", sentence)
    _check_ready(endpoint)


def _check_ready(endpoint: Endpoint) -> None:
    if not endpoint.is_ready:
        raise ProblemError("busy", "the model is not loaded yet; ask again", headers={"retry-after": "1"})


def write_response(name: str, asked: Asked, answers: Sequence[Prediction]) -> Response:
    """Return the response with the outputs that were asked for, each in JSON or binary form.

    Raises:
        ProblemError: The bundle does not have one of them.
    """
    made = make_outputs(answers)
    described: list[Mapping[str, Any]] = []
    packed: list[bytes] = []
    for output, is_binary in (asked.outputs or dict.fromkeys(made, asked.is_binary)).items():
        if output not in made:
            raise make_refusal(f"this bundle does not have the output {output}; it has {', '.join(made)}")
        described.append(_describe_output(output, made[output], is_binary, packed))
    page: dict[str, Any] = {"model_name": name, "model_version": VERSION}
    if asked.id is not None:
        page["id"] = asked.id
    page |= {"parameters": {"bundle": answers[0].bundle}, "outputs": described}
    if not packed:
        return JSONResponse(page)
    text = json.dumps(page, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    headers = {HEADER: str(len(text))}
    return Response(b"".join([text, *packed]), headers=headers, media_type="application/octet-stream")


def _describe_output(name: str, tensor: Produced, is_binary: bool, packed: list[bytes]) -> Mapping[str, Any]:
    """Return the JSON of an output; if it is binary, its bytes are appended to `packed`."""
    said = {"name": name, "datatype": tensor.datatype, "shape": tensor.shape}
    if not is_binary:
        return {**said, "data": tensor.describe()}
    packed.append(tensor.pack())
    return {**said, "parameters": {"binary_data_size": len(packed[-1])}}


def _make_model_pages(model: str) -> tuple[Page, ...]:
    """Return the pages of a model, by its address with or without a version."""
    return (
        Page("GET", model, _describe_model, problems=("no-such-page", "busy")),
        Page("GET", f"{model}/ready", _answer_model_ready, problems=("no-such-page", "busy")),
        Page(
            "POST",
            f"{model}/infer",
            _infer,
            takes=_BODY,
            problems=(
                "malformed-request",
                "no-such-page",
                "upload-too-slow",
                "too-large",
                "unsupported-type",
                "picture-refused",
                "invalid-request",
                "fault",
                "busy",
                "too-late",
            ),
        ),
    )


PAGES: tuple[Page, ...] = (
    Page("GET", ROOT, _describe_server),
    Page("GET", f"{ROOT}/health/live", _answer_live, gives=dict[str, bool], is_open=True),
    Page("GET", f"{ROOT}/health/ready", _answer_ready, gives=dict[str, bool], problems=("busy",), is_open=True),
    *_make_model_pages(_MODEL),
    *_make_model_pages(_VERSIONED),
)
