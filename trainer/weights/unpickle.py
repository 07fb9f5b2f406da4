"""Read checkpoints with objects of unknown classes, building only tensors and containers."""

from __future__ import annotations

import io
import pickle
import types
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

DEPTH: Final = 2
"""Levels of a checkpoint at which objects are opened: the top object, and the values of a top-level dict."""


class Unbuilt:
    """A stand-in for a pickled object that is not built; has its class's name, its attributes and its dict entries."""

    kind: str = ""
    """Its class or function, as module.name."""
    dump_patches: Final = False
    """torch reads this from classes in files from before 2020."""

    def __new__(cls, *args: Any, **options: Any) -> Unbuilt:  # noqa: ARG004, arguments of the real class
        made = super().__new__(cls)
        made.attributes = {}
        made.entries = {}
        return made

    attributes: dict[str, Any]
    entries: dict[Any, Any]

    def __init__(self, *args: Any, **options: Any) -> None:
        """Accept any arguments."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 2:  # attributes, and those in slots
            for part in state:
                self.__setstate__(part)
        elif isinstance(state, dict):
            self.attributes.update(state)

    def __setitem__(self, name: Any, value: Any) -> None:
        self.entries[name] = value

    def __call__(self, *args: Any, **options: Any) -> Unbuilt:  # noqa: ARG002, a method of it
        return Unbuilt()

    def append(self, value: Any) -> None:
        """Ignore an entry of a list or set."""

    extend = add = append


def load_unbuilt(data: bytes) -> tuple[Any, tuple[str, ...]]:
    """Return the content of a file of torch.save, and the sorted names of classes that were not built.

    Modules become their state dicts, and other objects at the top levels dicts of their attributes; deeper ones stay
    `Unbuilt`. No code chosen by the file runs: a pickle may only call what is in `_BUILT`; everything else is
    `Unbuilt`.

    Raises:
        Exception: Of many kinds, on bytes that are not such a file.
    """
    kinds: set[str] = set()

    class Restricted(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            build = _BUILT.get((module, name))
            if build is not None:
                # A new function: a pickle may set attributes on what it finds, and must not change torch's.
                return build if isinstance(build, type) else lambda *args: build(*args)
            if module not in ("builtins", "__builtin__"):  # pickle uses these for sets and slices
                kinds.add(f"{module}.{name}")
            return type(name.rpartition(".")[2] or "Unbuilt", (Unbuilt,), {"kind": f"{module}.{name}"})

    reader: Any = types.ModuleType("restricted")
    reader.Unpickler = Restricted
    reader.load = lambda file, **options: Restricted(file, **options).load()
    with warnings.catch_warnings(action="ignore"):  # about classes without source
        content = torch.load(io.BytesIO(data), map_location="cpu", pickle_module=reader, weights_only=False)
    return open_objects(content), tuple(sorted(kinds))


def _build_tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    build: Callable[..., Tensor] = torch._utils._rebuild_tensor
    return build(storage, offset, size, stride)


def _take_first(tensor: Any, *_: Any) -> Any:
    return tensor


_BUILT: Final[dict[tuple[str, str], Callable[..., Any]]] = {
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): torch.Size,
    ("torch._utils", "_rebuild_tensor"): _build_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _build_tensor,
    ("torch._utils", "_rebuild_parameter"): _take_first,
    ("torch._utils", "_rebuild_parameter_with_state"): _take_first,
}
"""Everything that a pickle may call."""


def open_objects(content: Any, depth: int = DEPTH) -> Any:
    """Return content whose objects are dicts, down to `depth`; modules are state dicts."""
    if isinstance(content, Unbuilt):
        if _is_module(content):
            return read_module(content)
        # Iterate over a copy, because of reference cycles.
        content = content.entries or content.attributes
    if not isinstance(content, dict) or depth == 0:
        return content
    return {name: open_objects(value, depth - 1) for name, value in content.items()}


def _is_module(value: Any) -> bool:
    return isinstance(value, Unbuilt) and {"_parameters", "_buffers", "_modules"} <= value.attributes.keys()


def read_module(module: Unbuilt) -> dict[str, Tensor]:
    """Return the state dict of a torch module that was pickled as an object."""
    state = module.attributes
    fleeting = state.get("_non_persistent_buffers_set") or ()
    own = {**state["_parameters"], **{name: each for name, each in state["_buffers"].items() if name not in fleeting}}
    tensors = {name: each for name, each in own.items() if isinstance(each, Tensor)}
    for name, child in state["_modules"].items():
        if _is_module(child):
            tensors |= {f"{name}.{inner}": each for inner, each in read_module(child).items()}
    return tensors
