"""Messages of the protocol as requests under /v2 with binary tensors, and their answers as messages."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cluster.serve.gateway.messages import RESPONSES
from cluster.serve.v2.elements import pack_elements
from cluster.serve.v2.request import HEADER

_PACKED: Final = {"UINT8": ("uint_contents", "B"), "FP32": ("fp32_contents", "f")}
"""Where the values of a datatype are that are not raw, and their form in `struct`."""


class RequestError(Exception):
    """A message that no request under /v2 can stand for; the text is one sentence."""


def write_request(message: Any) -> tuple[dict[str, str], bytes]:
    """Return headers and body of the request that a ModelInferRequest stands for.

    Raises:
        RequestError: It has not one value for each element of its tensors.
    """
    raw = list(message.raw_input_contents)
    if raw and len(raw) != len(message.inputs):
        raise RequestError(
            f"the request has {len(message.inputs)} inputs and {len(raw)} raw_input_contents; send one for each input"
        )
    twice = next((place for place, tensor in enumerate(message.inputs) if raw and tensor.HasField("contents")), None)
    if twice is not None:
        raise RequestError(f"inputs[{twice}] has contents and the request has raw_input_contents; send one of them")
    packed = [raw[place] if raw else _pack(tensor) for place, tensor in enumerate(message.inputs)]
    page: dict[str, Any] = {
        "inputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": {**_read_parameters(tensor.parameters), "binary_data_size": len(data)},
            }
            for tensor, data in zip(message.inputs, packed, strict=True)
        ],
        "outputs": [
            {"name": each.name, "parameters": {**_read_parameters(each.parameters), "binary_data": True}}
            for each in message.outputs
        ],
        "parameters": {**_read_parameters(message.parameters), "binary_data_output": True},
    }
    if message.id:
        page["id"] = message.id
    text = json.dumps(page).encode()
    return {HEADER: str(len(text)), "content-type": "application/octet-stream"}, b"".join([text, *packed])


def _read_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    chosen = {name: each.WhichOneof("parameter_choice") for name, each in parameters.items()}
    return {name: getattr(parameters[name], choice) for name, choice in chosen.items() if choice}


def _pack(tensor: Any) -> bytes:
    """Return the values of a tensor that has them as `contents`, in the form that raw ones have."""
    if tensor.datatype == "BYTES":
        return pack_elements(tensor.contents.bytes_contents)
    field, form = _PACKED.get(tensor.datatype, ("uint_contents", "B"))  # others are refused under /v2
    values = getattr(tensor.contents, field)
    try:
        return struct.pack(f"<{len(values)}{form}", *values)
    except struct.error as err:
        raise RequestError(f"{tensor.name} has values that are not of its datatype {tensor.datatype} ({err})") from err


def read_response(headers: Mapping[str, str], body: bytes) -> Any:
    """Return the ModelInferResponse for the answer of a request that asked for binary tensors."""
    size = int(headers[HEADER])
    page = json.loads(body[:size])
    response = RESPONSES["ModelInfer"](
        model_name=page["model_name"], model_version=page["model_version"], id=page.get("id", "")
    )
    for name, value in page["parameters"].items():
        response.parameters[name].string_param = value
    begin = size
    for each in page["outputs"]:
        response.outputs.add(name=each["name"], datatype=each["datatype"], shape=each["shape"])
        end = begin + each["parameters"]["binary_data_size"]
        response.raw_output_contents.append(body[begin:end])
        begin = end
    return response


def read_metadata(page: Mapping[str, Any]) -> Any:
    """Return the ModelMetadataResponse for a model's page; what tensors have as parameters, messages do not have."""
    response = RESPONSES["ModelMetadata"](name=page["name"], versions=page["versions"], platform=page["platform"])
    for tensors, given in ((response.inputs, page["inputs"]), (response.outputs, page["outputs"])):
        _add_tensors(tensors, given)
    return response


def _add_tensors(tensors: Any, given: Sequence[Mapping[str, Any]]) -> None:
    for each in given:
        tensors.add(name=each["name"], datatype=each["datatype"], shape=each["shape"])
