"""Tensors of a weights file of any ending, told by content, and never by running what it holds."""

from __future__ import annotations

import argparse
import contextlib
import io
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
from trainer.weights.saved import is_saved_folder, list_weight_files
from trainer.weights.unpickle import Unbuilt, load_unbuilt

Tensors = dict[str, Tensor]

AVERAGES: Final = ("state_dict_ema", "model_ema")
"""Keys under which training scripts keep the average of the weights, which is what they evaluate; timm's order."""
WRAPPERS: Final = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params",
)  # fmt: skip
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
    """Keys of other state dicts in the file, such as the plain weights beside their average, which were not taken."""
    average: str = ""
    """The key of the average of the weights, where that was taken unasked."""
    unbuilt: tuple[str, ...] = ()
    """Classes of objects in the file whose code was not run."""


class Choice(NamedTuple):
    """Which of the models in a checkpoint is taken."""

    key: str | None = None
    """Where it is: keys joined by dots, or what stands in front of its tensors' names; None finds it."""
    ema: bool = True
    """Take the average of the weights, where a file has one under a key of AVERAGES."""


FOUND: Final = Choice()
"""The model that is found, and its average where there is one."""


def read_tensors(location: str, choice: Choice = FOUND) -> Found:
    """Return the tensors of a weights file, or of a folder as Hugging Face's libraries save it.

    Args:
        location: A path, or a URI (s3://, gs://, http://, https://).
        choice: Of several models.

    Raises:
        UsageError: No such file, or nothing under the key that is chosen.
        ShardError: Not a weights file, one that runs code when read, or one without a model's tensors.
        OSError: The store cannot be reached.
    """
    if "://" not in location and is_saved_folder(Path(location)):
        parts = [parse_tensors(path.read_bytes(), str(path), choice) for path in list_weight_files(Path(location))]
        return parts[0]._replace(tensors={name: each for part in parts for name, each in part.tensors.items()})
    return parse_tensors(read_bytes(location), hide_query(location), choice)


def hide_query(location: str) -> str:
    """Return a location without its query, which may be a signature."""
    return location.partition("?")[0] if "://" in location else location


def read_bytes(location: str) -> bytes:
    """Return the content of a path or URI; raises as `read_tensors`."""
    if "://" not in location:
        path = Path(location)
        if path.is_dir():
            raise UsageError(
                f"{location} is a folder without a bundle.json, and without a config.json beside weights; name a "
                "weights file or a bundle"
            )
        if not path.is_file():
            raise UsageError(f"no weights file {location}; name one that is there")
        return path.read_bytes()
    address, question, query = location.partition("?")
    parent, _, name = address.rpartition("/")
    return open_readable(parent + question + query).read(unquote(name))


def parse_tensors(data: bytes, where: str, choice: Choice = FOUND) -> Found:
    """Return the tensors in a file's content; raises as `read_tensors`, calling it `where`."""
    content, unbuilt = _parse(data, where)
    return unwrap(content, where, choice)._replace(unbuilt=unbuilt)


def _parse(data: bytes, where: str) -> tuple[Any, tuple[str, ...]]:
    """Return a file's content, and the classes of objects in it that were not built."""
    try:
        if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data):
            return dict(safetensors.torch.load(data)), ()
        with _harmless_allowed(), warnings.catch_warnings(action="ignore"):  # of what is refused, or made dense, below
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), ()
    except Exception as err:  # torch and safetensors raise many kinds on foreign bytes
        # What torch refuses to build is read without being built; a TorchScript program it would load otherwise.
        if "TorchScript" not in str(err):
            with contextlib.suppress(Exception):
                return load_unbuilt(data)
        raise ShardError(f"{where} is not a weights file that can be read safely: {_explain(err, data)}") from err


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
    if data[:1] == b"\x80" and b"torch" not in data[:200]:
        return "it is a plain pickle, which runs code when read; save the tensors with torch.save"
    if data[:2] == b"PK" and b"/data.pkl" not in data:
        return "it is a zip, and not one that torch.save wrote; save the tensors with torch.save"
    if "Weights only load failed" in str(err):
        return "its pickle is damaged, or does more than to describe what it holds; save the tensors with torch.save"
    return (str(err).splitlines() or [type(err).__name__])[0]


def unwrap(content: Any, where: str, choice: Choice = FOUND) -> Found:
    """Return the state dict inside a checkpoint: that which is chosen, or under a key of AVERAGES or WRAPPERS, or the
    only one that is there.

    Raises:
        UsageError: Nothing under the key that is chosen.
        ShardError: There is none, or there are several under keys that say nothing.
    """
    found = content
    if choice.key is not None:
        found = _choose(content, choice.key, where)
    beside: list[str] = []
    average = ""
    while isinstance(found, dict):
        inside = [str(key) for key, value in found.items() if _is_state_dict(value)]
        averages = [key for key in AVERAGES if choice.ema and choice.key is None and _holds_tensors(found.get(key))]
        key = next((key for key in (*averages, *WRAPPERS) if _holds_tensors(found.get(key))), None)
        if key is None and _is_state_dict(found):
            tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
            dense = {name: tensor.detach().to_dense() for name, tensor in tensors.items()}
            return Found(dense, tuple(beside), average)
        if key is None and len(inside) != 1:
            break
        key = inside[0] if key is None else key
        average = key if key in averages else average
        beside += [str(other) for other in inside if other != key]
        found = found[key]
    raise ShardError(f"{where} holds no state dict (names to tensors), {_describe(found)}")


def _describe(found: Any) -> str:
    """Return what a checkpoint without one model holds in its place, and the way out."""
    if isinstance(found, dict) and (models := [str(key) for key, value in found.items() if _holds_tensors(value)]):
        return f"but several, under {', '.join(models[:8])}; choose one by {chosen_by(models[0])}"
    has = f"a dict of {', '.join(map(str, list(found)[:8]))}" if isinstance(found, dict) else _name_kind(found)
    return (
        f"not under any of {', '.join(WRAPPERS)} either; it holds "
        f"{has if found or not isinstance(found, dict) else 'an empty dict'}; "
        "save the model's alone: torch.save(model.state_dict(), NEW)"
    )


def _name_kind(value: Any) -> str:
    return value.kind if isinstance(value, Unbuilt) else type(value).__name__


def chosen_by(key: str) -> str:
    """Return how a user chooses one of several models in a checkpoint.

    >>> chosen_by("teacher")
    '--key teacher (in a recipe weights_key=teacher)'
    """
    return f"--key {key} (in a recipe weights_key={key})"


def _choose(content: Any, key: str, where: str) -> Any:
    """Return what a checkpoint has under a key, or below a path of them; else the tensors whose names begin with it.

    Raises:
        UsageError: Nothing.
    """
    found, rest = content, key
    while isinstance(found, dict) and rest:
        name = next((name for name in _list_beginnings(rest) if name in found), None)
        if name is None:
            break
        found, rest = found[name], rest[len(name) + 1 :]
    if not rest and _holds_tensors(found):
        return found
    start = f"{rest.removesuffix('.')}."
    flat: Tensors = found if _is_state_dict(found) else {}
    if not flat:
        with contextlib.suppress(ShardError):
            flat = unwrap(found, where, Choice(ema=False)).tensors
    below = {name.removeprefix(start): each for name, each in flat.items() if str(name).startswith(start)}
    if not below:
        names = [str(name) for name, value in content.items() if _holds_tensors(value)]
        tops = names or list(dict.fromkeys(str(name).partition(".")[0] for name in flat))
        raise UsageError(f"{where} has no tensors under '{key}'; there are {', '.join(tops[:12])}")
    return below


def _list_beginnings(path: str) -> list[str]:
    """Return the beginnings of a dotted path that may be a key, the longest first.

    >>> _list_beginnings("a.b")
    ['a.b', 'a']
    """
    parts = path.split(".")
    return [".".join(parts[:number]) for number in range(len(parts), 0, -1)]


def _holds_tensors(value: Any) -> bool:
    """Say whether a value is a dict with tensors somewhere in it; one under "model" may be its configuration."""
    return isinstance(value, dict) and any(isinstance(each, Tensor) or _holds_tensors(each) for each in value.values())


def _is_state_dict(value: Any) -> bool:
    """Say whether a value is a dict of tensors; some keep a counter beside them."""
    if not isinstance(value, dict):
        return False
    tensors = sum(isinstance(each, Tensor) for each in value.values())
    return tensors > 0 and 2 * tensors >= len(value)
