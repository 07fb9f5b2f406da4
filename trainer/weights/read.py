"""Read tensors from a weights file, recognised by content, without running code from it."""

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
"""Keys for averaged weights (EMA), which training scripts evaluate; in timm's order."""
WRAPPERS: Final = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params",
)  # fmt: skip
"""Keys for the tensors of the model in checkpoints; the first one present is used."""
_NUMPY_SCALAR: Final = np.float64(0).__reduce__()[0]
_NUMPY_ARRAY: Final = np.zeros(0).__reduce__()[0]
# Harmless values that training scripts store beside the tensors.
_HARMLESS: Final[list[Any]] = [
    argparse.Namespace, np.dtype, np.ndarray, *{type(np.dtype(code)) for code in "?bBhHiIlLqQefdSU"},
    *((_NUMPY_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_NUMPY_ARRAY, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
]  # fmt: skip


class Found(NamedTuple):
    """The content of a weights file."""

    tensors: Tensors
    """Tensors by the file's names."""
    beside: tuple[str, ...] = ()
    """Keys of other state dicts in the file that were not used, such as the plain weights beside their average."""
    average: str = ""
    """Key of the averaged weights, if they were used by default."""
    unbuilt: tuple[str, ...] = ()
    """Classes of objects in the file whose code was not run."""


class Choice(NamedTuple):
    """Which model of a checkpoint to use."""

    key: str | None = None
    """Keys joined by dots, or the prefix of its tensor names; None: found automatically."""
    ema: bool = True
    """Use averaged weights if the file has them under a key of AVERAGES."""


FOUND: Final = Choice()
"""The default: the model is found automatically, with averaged weights if there are any."""


def read_tensors(location: str, choice: Choice = FOUND) -> Found:
    """Return the tensors of a weights file, or of a folder as Hugging Face's libraries save it.

    Args:
        location: A path, or a URI (s3://, gs://, http://, https://).
        choice: Which of several models to use.

    Raises:
        UsageError: The file does not exist, or has nothing under the chosen key.
        ShardError: The file is not a weights file, would run code when read, or has no model's tensors.
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
    """Return the content of a path or URI; raises like `read_tensors`."""
    if "://" not in location:
        path = Path(location)
        if path.is_dir():
            raise UsageError(
                f"{location} is a folder without bundle.json, and without config.json beside weights; name a "
                "weights file or a bundle"
            )
        if not path.is_file():
            raise UsageError(f"no weights file {location}; name an existing one")
        return path.read_bytes()
    address, question, query = location.partition("?")
    parent, _, name = address.rpartition("/")
    return open_readable(parent + question + query).read(unquote(name))


def parse_tensors(data: bytes, where: str, choice: Choice = FOUND) -> Found:
    """Return the tensors in a file's content; raises like `read_tensors`, with `where` as its name."""
    content, unbuilt = _parse(data, where)
    return unwrap(content, where, choice)._replace(unbuilt=unbuilt)


def _parse(data: bytes, where: str) -> tuple[Any, tuple[str, ...]]:
    """Return a file's content, and the sorted names of the classes in it that were not instantiated, for safety."""
    try:
        if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data):
            return dict(safetensors.torch.load(data)), ()
        with _harmless_allowed(), warnings.catch_warnings(action="ignore"):  # about what is handled below
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), ()
    except Exception as err:  # torch and safetensors raise many kinds on foreign bytes
        # Objects that torch refuses to build are read without building them, but not TorchScript programs.
        if "TorchScript" not in str(err):
            with contextlib.suppress(Exception):
                return load_unbuilt(data)
        raise ShardError(f"{where} is not a weights file that can be read safely: {_explain(err, data)}") from err


@contextmanager
def _harmless_allowed() -> Iterator[None]:
    with torch.serialization.safe_globals(_HARMLESS):
        yield


def _explain(err: Exception, data: bytes) -> str:
    """Return the fault of a file and the remedy, as a clause."""
    if not data:
        return "it is empty; copy it again"
    if data.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS; fetch the file itself with `git lfs pull`"
    if data.lstrip()[:1] == b"<":
        return "it is a web page, perhaps the error page of a download; fetch it again"
    if data[8:9] == b"{" or (data[:2] == b"PK" and b"PK\x05\x06" not in data[-65_557:]):
        return "it is truncated or damaged; copy it again"
    if "TorchScript" in str(err):
        return "it is a TorchScript program; save its tensors: torch.save(torch.jit.load(FILE).state_dict(), NEW)"
    if data[:1] == b"\x80" and b"torch" not in data[:200]:
        return "it is a plain pickle, which runs code when read; save the tensors with torch.save"
    if data[:2] == b"PK" and b"/data.pkl" not in data:
        return "it is a zip that torch.save did not write; save the tensors with torch.save"
    if "Weights only load failed" in str(err):
        return "its pickle is damaged or runs code; save the tensors with torch.save"
    return (str(err).splitlines() or [type(err).__name__])[0]


def unwrap(content: Any, where: str, choice: Choice = FOUND) -> Found:
    """Return the state dict inside a checkpoint: the chosen one, or one under a key of AVERAGES or WRAPPERS, or the
    only one.

    Raises:
        UsageError: There is nothing under the chosen key.
        ShardError: There is no state dict, or several under unknown keys.
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
    """Return what a checkpoint has instead of a single model, and the remedy."""
    if isinstance(found, dict) and (models := [str(key) for key, value in found.items() if _holds_tensors(value)]):
        return f"but several, under {', '.join(models[:8])}; choose one by {chosen_by(models[0])}"
    has = f"a dict of {', '.join(map(str, list(found)[:8]))}" if isinstance(found, dict) else _name_kind(found)
    return (
        f"not under any of {', '.join(WRAPPERS)} either; it has "
        f"{has if found or not isinstance(found, dict) else 'an empty dict'}; "
        "save only the model: torch.save(model.state_dict(), NEW)"
    )


def _name_kind(value: Any) -> str:
    return value.kind if isinstance(value, Unbuilt) else type(value).__name__


def chosen_by(key: str) -> str:
    """Return the option that chooses one of several models in a checkpoint.

    >>> chosen_by("teacher")
    '--key teacher (in a recipe weights_key=teacher)'
    """
    return f"--key {key} (in a recipe weights_key={key})"


def _choose(content: Any, key: str, where: str) -> Any:
    """Return the content under a key or a dotted path of keys; else the tensors with that name prefix.

    Raises:
        UsageError: There is none.
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
    """Return the prefixes of a dotted path that may be a key, the longest first.

    >>> _list_beginnings("a.b")
    ['a.b', 'a']
    """
    parts = path.split(".")
    return [".".join(parts[:number]) for number in range(len(parts), 0, -1)]


def _holds_tensors(value: Any) -> bool:
    """Return whether a value is a dict that contains tensors; one under "model" may be a configuration."""
    return isinstance(value, dict) and any(isinstance(each, Tensor) or _holds_tensors(each) for each in value.values())


def _is_state_dict(value: Any) -> bool:
    """Return whether a value is a dict of tensors, possibly with a counter."""
    if not isinstance(value, dict):
        return False
    tensors = sum(isinstance(each, Tensor) for each in value.values())
    return tensors > 0 and 2 * tensors >= len(value)
