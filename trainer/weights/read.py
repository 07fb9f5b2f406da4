"""Tensors of a weights file of any ending, told by content, and never by running what it holds."""

from __future__ import annotations

import argparse
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from shards.errors import ShardError, UsageError
from shards.storage.storage import open_readable

Tensors = dict[str, Tensor]

WRAPPERS: Final = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
"""Keys under which checkpoints keep the tensors of their model, the first that is there counts."""
_NUMPY_SCALAR: Final = np.float64(0).__reduce__()[0]
_NUMPY_ARRAY: Final = np.zeros(0).__reduce__()[0]
# What training scripts leave beside the tensors: values, no code.
_HARMLESS: Final[list[Any]] = [
    argparse.Namespace, np.dtype, np.ndarray, *{type(np.dtype(code)) for code in "?bBhHiIlLqQefdSU"},
    *((_NUMPY_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_NUMPY_ARRAY, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
]  # fmt: skip


class Found(NamedTuple):
    """What a weights file holds."""

    tensors: Tensors
    """By the names that the file gives them."""
    beside: tuple[str, ...] = ()
    """Keys of other state dicts in the file, such as an average of the weights, which were not taken."""


def read_tensors(location: str) -> Found:
    """Return the tensors of a weights file.

    Args:
        location: A path, or a URI (s3://, gs://, http://, https://).

    Raises:
        UsageError: No such file.
        ShardError: Not a weights file, one that holds code, or one without a model's tensors.
        OSError: The store cannot be reached.
    """
    return parse_tensors(read_bytes(location), hide_query(location))


def hide_query(location: str) -> str:
    """Return a location without its query, which may be a signature."""
    return location.partition("?")[0] if "://" in location else location


def read_bytes(location: str) -> bytes:
    """Return the content of a path or URI; raises as `read_tensors`."""
    if "://" not in location:
        path = Path(location)
        if path.is_dir():
            raise UsageError(f"{location} is a folder without a bundle.json; name a weights file or a bundle")
        if not path.is_file():
            raise UsageError(f"no weights file {location}; name one that is there")
        return path.read_bytes()
    address, question, query = location.partition("?")
    parent, _, name = address.rpartition("/")
    return open_readable(parent + question + query).read(unquote(name))


def parse_tensors(data: bytes, where: str) -> Found:
    """Return the tensors in a file's content; raises as `read_tensors`, calling it `where`."""
    try:
        if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data):
            return Found(dict(safetensors.torch.load(data)))
        with _harmless_allowed(), warnings.catch_warnings(action="ignore"):  # of what is refused, or made dense, below
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as err:  # torch and safetensors raise many kinds on foreign bytes
        raise ShardError(f"{where} is not a weights file that can be read safely: {_explain(err, data)}") from err
    return unwrap(content, where)


@contextmanager
def _harmless_allowed() -> Iterator[None]:
    with torch.serialization.safe_globals(_HARMLESS):
        yield


def _explain(err: Exception, data: bytes) -> str:
    """Return what is wrong with a file, and what to do about it, in a clause."""
    if not data:
        return "it is empty; copy it again"
    if data.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS; fetch the file itself with `git lfs pull`"
    if data.lstrip()[:1] == b"<":
        return "it is a web page, perhaps the error page of a download; fetch it again"
    if data[8:9] == b"{" or (data[:2] == b"PK" and b"PK\x05\x06" not in data[-65_557:]):
        return "it is cut off or damaged; copy it again"
    if "TorchScript" in str(err):
        return "it is a TorchScript program; save its tensors: torch.save(torch.jit.load(FILE).state_dict(), NEW)"
    code = re.search(r"GLOBAL (\S+)|Unsupported class (\S+)", str(err))
    if code:
        return (
            f"it holds {code[1] or code[2]}, and reading that would run its code; where you trust the file, save the "
            "tensors alone: torch.save(torch.load(FILE, weights_only=False).state_dict(), NEW), and where it is a dict "
            "with a state dict inside, that one"
        )
    if data[:1] == b"\x80" and b"torch" not in data[:200]:
        return "it is a plain pickle, which runs code when read; save the tensors with torch.save"
    if data[:2] == b"PK" and b"/data.pkl" not in data:
        return "it is a zip, and not one that torch.save wrote; save the tensors with torch.save"
    return (str(err).splitlines() or [type(err).__name__])[0]


def unwrap(content: Any, where: str) -> Found:
    """Return the state dict inside a checkpoint: under a key of WRAPPERS, or the only one that is there.

    Raises:
        ShardError: There is none, or there are several under keys that say nothing.
    """
    found = content
    beside: list[str] = []
    while isinstance(found, dict):
        inside = [key for key, value in found.items() if _is_state_dict(value)]
        key = next((key for key in WRAPPERS if _holds_tensors(found.get(key))), None)
        if key is None and _is_state_dict(found):
            tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
            return Found({name: tensor.detach().to_dense() for name, tensor in tensors.items()}, tuple(beside))
        if key is None and len(inside) != 1:
            break
        key = inside[0] if key is None else key
        beside += [str(other) for other in inside if other != key]
        found = found[key]
    has = f"a dict of {', '.join(map(str, list(found)[:8]))}" if isinstance(found, dict) else type(found).__name__
    raise ShardError(
        f"{where} holds no state dict (names to tensors), not under any of {', '.join(WRAPPERS)} either; "
        f"it holds {has if found or not isinstance(found, dict) else 'an empty dict'}; "
        "save the model's alone: torch.save(model.state_dict(), NEW)"
    )


def _holds_tensors(value: Any) -> bool:
    """Say whether a value is a dict with tensors somewhere in it; one under "model" may be its configuration."""
    return isinstance(value, dict) and any(isinstance(each, Tensor) or _holds_tensors(each) for each in value.values())


def _is_state_dict(value: Any) -> bool:
    """Say whether a value is a dict of tensors; some keep a counter beside them."""
    if not isinstance(value, dict):
        return False
    tensors = sum(isinstance(each, Tensor) for each in value.values())
    return tensors > 0 and 2 * tensors >= len(value)
