"""Tensors of the protocol: input tensors as pictures, answers as output tensors, both in JSON and in binary form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cluster.serve.answer import Prediction
from cluster.serve.body import check_number, check_pictures, decode_base64
from cluster.serve.options import Limits
from cluster.serve.v2.elements import pack_elements, split_elements
from cluster.serve.v2.errors import make_refusal
from cluster.serve.v2.request import PICTURE, PREPARED, Received

SEPARATOR: Final = ";"
"""Between the labels of one picture in the output `label`."""
_TYPES: Final[dict[str, np.dtype[Any]]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4"), "BOOL": np.dtype("?")}


def read_inputs(tensor: Received, limits: Limits) -> list[bytes] | list[Tensor]:
    """Return the pictures of an input tensor: encoded files, or uint8 or float32[C, S, S] each.

    Raises:
        ProblemError: Its shape does not fit its data, its values are of the wrong type or range, or there are too many.
    """
    return read_files(tensor, limits) if tensor.name == PICTURE else list(read_images(tensor, limits))


def read_files(tensor: Received, limits: Limits) -> list[bytes]:
    """Return the encoded pictures of a BYTES tensor [N]; raises as `read_inputs` does."""
    _check_shape(tensor, ("N",), limits)
    if isinstance(tensor.data, memoryview):
        files = split_elements(tensor.data, tensor.shape[0])
    else:
        texts = flatten(tensor.data, tensor.shape)
        files = [decode_base64(text, f"{PICTURE}[{place}]") for place, text in enumerate(texts)]
    check_pictures(files, limits)
    return files


def read_images(tensor: Received, limits: Limits) -> Tensor:
    """Return uint8 or float32[N, C, S, S] of a UINT8 or FP32 tensor; raises as `read_inputs` does.

    FP32 whose values are whole is returned as uint8: it gives the same results, and every back end takes it.
    """
    _check_shape(tensor, ("N", "C", "S", "S"), limits)
    if isinstance(tensor.data, memoryview):
        values = _unpack(tensor.data, tensor)
    else:
        values = _convert(flatten(tensor.data, tensor.shape), tensor.datatype)
    if values.dtype != np.uint8:
        _check_range(values)
        whole = values.astype(np.uint8)
        values = whole if (whole == values).all() else values.astype(np.float32)
    return torch.from_numpy(values.reshape(tensor.shape).copy())


def _check_shape(tensor: Received, wanted: tuple[str, ...], limits: Limits) -> None:
    shape = tensor.shape
    if len(shape) != len(wanted):
        raise make_refusal(f"{tensor.name} has shape {str(shape)[:100]}, but must have [{', '.join(wanted)}]")
    check_number(shape[0], limits)


def flatten(data: list[Any], shape: Sequence[int]) -> list[Any]:
    """Return the values of a tensor in JSON, nested by its shape or flat.

    Raises:
        ProblemError: They do not fit the shape.

    >>> flatten([[1, 2], [3, 4]], [2, 2]), flatten([1, 2, 3, 4], [2, 2])
    ([1, 2, 3, 4], [1, 2, 3, 4])
    """
    if not (data and isinstance(data[0], list)):
        if len(data) != math.prod(shape):
            raise make_refusal(f"'data' has {len(data):,} values, but the shape {[*shape]} needs {math.prod(shape):,}")
        return data
    rows: list[Any] = [data]
    for size in shape:
        if not all(isinstance(row, list) and len(row) == size for row in rows):
            raise make_refusal(f"the lists in 'data' are not nested as the shape {[*shape]} says")
        rows = [*chain.from_iterable(rows)]
    return rows


def _unpack(data: memoryview, tensor: Received) -> npt.NDArray[Any]:
    kind = _TYPES[tensor.datatype]
    needed = math.prod(tensor.shape) * kind.itemsize
    if len(data) != needed:
        raise make_refusal(
            f"{tensor.name} has {len(data):,} bytes, but {tensor.datatype} of shape {tensor.shape} has {needed:,}"
        )
    return np.frombuffer(data, kind)


def _convert(values: list[Any], datatype: str) -> npt.NDArray[Any]:
    """Return uint8 or float64[...] of values from JSON."""
    kinds = {*map(type, values)} - ({int} if datatype == "UINT8" else {int, float})
    if kinds:
        raise make_refusal(f"'data' of {PREPARED} has a {kinds.pop().__name__}, but {datatype} takes numbers alone")
    try:
        return np.frombuffer(bytes(values), np.uint8) if datatype == "UINT8" else np.array(values, np.float64)
    except (ValueError, OverflowError) as err:
        raise make_refusal(f"{PREPARED} has a value that is not in 0..255") from err


def _check_range(values: npt.NDArray[Any]) -> None:
    if not np.isfinite(values).all():
        raise make_refusal(f"{PREPARED} has a value that is not finite")
    if values.size and not (values.min() >= 0 and values.max() <= 255):
        raise make_refusal(
            f"{PREPARED} has values from {values.min():g} to {values.max():g}, but must have pixels in 0..255; the "
            "model itself normalises them"
        )


@dataclass(frozen=True)
class Produced:
    """An output tensor: values [N] or [N, K] of its datatype, or the texts of BYTES [N]."""

    datatype: str
    values: npt.NDArray[Any] | list[str]

    @property
    def shape(self) -> list[int]:
        return [len(self.values)] if isinstance(self.values, list) else list(self.values.shape)

    def describe(self) -> list[Any]:
        """Return the values for JSON, row by row."""
        return self.values if isinstance(self.values, list) else self.values.ravel().tolist()

    def pack(self) -> bytes:
        """Return the binary form."""
        if not isinstance(self.values, list):
            return self.values.tobytes()
        return pack_elements(text.encode() for text in self.values)


def make_outputs(answers: Sequence[Prediction]) -> dict[str, Produced]:
    """Return the output tensors of the answers of one bundle, by name; at least one answer."""
    columns: dict[str, tuple[str, list[Any]]] = {
        "probabilities": ("FP32", [[*(each.probabilities or {}).values()] for each in answers]),
        "logits": ("FP32", [each.logits for each in answers]),
    }
    if answers[0].abstain is not None:
        columns["abstain"] = ("BOOL", [each.abstain for each in answers])
    if answers[0].ood_score is not None:
        columns["ood_score"] = ("FP32", [each.ood_score for each in answers])
    numbers = {name: Produced(kind, np.array(rows, _TYPES[kind])) for name, (kind, rows) in columns.items()}
    return {"label": Produced("BYTES", [SEPARATOR.join(each.labels) for each in answers]), **numbers}
