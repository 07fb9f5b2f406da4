"""The JSON of an inference request: its one input tensor, the outputs that it selects, and the form of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cluster.serve.body import parse_json
from cluster.serve.v2.errors import make_refusal

HEADER: Final = "inference-header-content-length"
"""Bytes of the JSON at the beginning of a body, if binary tensors follow it."""
OUTPUTS: Final = ("label", "probabilities", "logits", "abstain", "ood_score")
PICTURE: Final = "picture"
PREPARED: Final = "input"
DATATYPES: Final = {PICTURE: ("BYTES",), PREPARED: ("UINT8", "FP32")}
"""The datatypes of each input tensor."""
_WANTED: Final = (
    'send {"inputs": [{"name": "picture", "datatype": "BYTES", "shape": [1], "data": ["BASE64"]}]}, or binary tensors '
    f"after JSON whose length is in the header {HEADER}"
)
_MOST: Final = 2**63 - 1  # larger sizes cannot be meant
_TYPES: Final[dict[type, str]] = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}


@dataclass(frozen=True)
class Received:
    """An input tensor; `data` are the values of its JSON, or its part of a binary body."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | memoryview


@dataclass(frozen=True)
class Asked:
    """What a request asks for."""

    tensor: Received
    outputs: dict[str, bool]
    """The selected outputs, each with whether it is to be binary; empty: all that there are."""
    is_binary: bool
    """Whether outputs are binary that are not in `outputs`."""
    id: str | None = None


def parse_request(body: bytes, header: str | None) -> Asked:
    """Return what a body asks for; nothing is allocated by the sizes that it declares.

    Args:
        body: JSON, and after it the bytes of a binary tensor.
        header: The value of `HEADER`; without one, all of the body is JSON.

    Raises:
        ProblemError: It is of another form.
    """
    size = len(body) if header is None else _read_size(header, len(body))
    page = parse_json(body if size == len(body) else body[:size], _WANTED)
    if not isinstance(page, dict):
        raise make_refusal(f"the JSON is {show(page)}; {_WANTED}")
    is_binary = _read_flag(_read(page, "parameters", dict, "the request", {}), "binary_data_output", False)
    return Asked(
        tensor=_read_tensor(page, memoryview(body)[size:], has_header=header is not None),
        outputs=_read_outputs(page, is_binary),
        is_binary=is_binary,
        id=_read_id(page),
    )


def show(value: Any) -> str:
    """Return a value of a JSON body for a sentence: it may be large or nested deeply.

    >>> show("x"), show([[]]), show(None)
    ("'x'", 'a list', 'null')
    """
    if value is None:
        return "null"
    return _TYPES[type(value)] if isinstance(value, dict | list) else repr(value)[:100]


def _read_size(header: str, most: int) -> int:
    """Return the bytes of the JSON, 1 to `most`."""
    is_number = header.isascii() and header.isdigit() and len(header) < 20
    if not is_number or not 0 < int(header) <= most:
        raise make_refusal(
            f"the header {HEADER} is {header[:50]!r}, but must be the bytes of the JSON, from 1 to the {most:,} of the "
            "body"
        )
    return int(header)


def _read(page: Mapping[str, Any], name: str, kind: type, where: str, default: Any = None) -> Any:
    """Return a field of a JSON object; if it is absent or null, the default, if that is not None."""
    value = page.get(name)
    value = default if value is None else value
    if type(value) is not kind:
        found = show(value) if name in page else "not there"
        raise make_refusal(f"'{name}' of {where} is {found}, but must be {_TYPES[kind]}; {_WANTED}")
    return value


def _read_flag(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    value: bool = _read(parameters, name, bool, "parameters", default)
    return value


def _read_id(page: Mapping[str, Any]) -> str | None:
    """Return the id, which is sent back and so must be text that can be sent."""
    if page.get("id") is None:
        return None
    name: str = _read(page, "id", str, "the request")
    try:
        name.encode()
    except UnicodeEncodeError as err:
        raise make_refusal(f"'id' of the request is {show(name)}, which is no Unicode text") from err
    return name


def _read_outputs(page: Mapping[str, Any], is_binary: bool) -> dict[str, bool]:
    outputs: dict[str, bool] = {}
    for place, asked in enumerate(_read(page, "outputs", list, "the request", [])):
        where = f"outputs[{place}]"
        if not isinstance(asked, dict):
            raise make_refusal(f"{where} is {show(asked)}, but must be an object like {{'name': 'label'}}")
        name, parameters = _read(asked, "name", str, where), _read(asked, "parameters", dict, where, {})
        if name not in OUTPUTS or name in outputs:
            problem = "is asked for twice" if name in outputs else "is not there"
            raise make_refusal(f"the output {show(name)} {problem}; outputs are {', '.join(OUTPUTS)}")
        _refuse_extensions(parameters, where)
        outputs[name] = _read_flag(parameters, "binary_data", is_binary)
    return outputs


def _refuse_extensions(parameters: Mapping[str, Any], where: str) -> None:
    """Refuse what would change the meaning of a tensor; other parameters that are not known change nothing."""
    for name in ("shared_memory_region", "classification"):
        if name in parameters:
            raise make_refusal(f"{where} has the parameter '{name}', an extension that this endpoint does not have")


def _read_tensor(page: Mapping[str, Any], rest: memoryview, has_header: bool) -> Received:
    """Return the one input tensor; `rest` are the bytes behind the JSON, which must be its own."""
    inputs = _read(page, "inputs", list, "the request")
    if len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise make_refusal(
            f"'inputs' must have exactly one tensor, {PICTURE} or {PREPARED}, and has {len(inputs):,}; {_WANTED}"
        )
    sent = inputs[0]
    name, datatype = (_read(sent, field, str, "inputs[0]") for field in ("name", "datatype"))
    if name not in DATATYPES:
        raise make_refusal(f"the input {show(name)} is not there; inputs are {PICTURE} and {PREPARED}")
    if datatype not in DATATYPES[name]:
        raise make_refusal(f"{name} has datatype {show(datatype)}, but must have {' or '.join(DATATYPES[name])}")
    shape = _read(sent, "shape", list, "inputs[0]")
    if not all(type(each) is int and 1 <= each <= _MOST for each in shape):
        raise make_refusal(f"the shape of {name} must be a list of whole numbers from 1 to 2^63 - 1")
    parameters = _read(sent, "parameters", dict, "inputs[0]", {})
    _refuse_extensions(parameters, "inputs[0]")
    return Received(name, datatype, shape, _find_data(sent, parameters, rest, has_header))


def _find_data(
    sent: Mapping[str, Any], parameters: Mapping[str, Any], rest: memoryview, has_header: bool
) -> list[Any] | memoryview:
    """Return the values of a tensor, from its JSON or from the `rest` of the body."""
    size = parameters.get("binary_data_size")
    if (sent.get("data") is None) == (size is None):
        found = "both" if size is not None else "neither"
        raise make_refusal(f"inputs[0] must have either 'data' or the parameter 'binary_data_size', got {found}")
    if size is None:
        if len(rest):
            raise make_refusal(
                f"{len(rest):,} bytes follow the JSON, but inputs[0] has no parameter 'binary_data_size'"
            )
        data: list[Any] = _read(sent, "data", list, "inputs[0]")
        return data
    if not has_header:
        raise make_refusal(f"inputs[0] is binary, so the header {HEADER} must say how long the JSON is")
    if type(size) is not int or size != len(rest):
        raise make_refusal(f"'binary_data_size' of inputs[0] is {show(size)}, but {len(rest):,} bytes follow the JSON")
    return rest
