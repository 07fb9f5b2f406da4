"""What the fields of an options class mean: the docstring under each field, read on demand.

pydantic's `use_attribute_docstrings` reads the source of every class on import, which doubles the import time of a
recipe's options.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
from pathlib import Path

from pydantic import BaseModel


def read_meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return field -> docstring on one line, with those of base classes; fields without a docstring are left out.

    >>> from shards.pictures.decode import DecodeOptions
    >>> sorted(read_meanings(DecodeOptions)) == sorted(DecodeOptions.model_fields)
    True
    """
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            found |= _read_class(inspect.getsourcefile(base) or "", base.__qualname__)
    return {name: found[name] for name in model.model_fields if name in found}


@functools.cache
def _read_module(path: str) -> ast.Module:
    return ast.parse(Path(path).read_text(encoding="utf-8"))


def _read_class(path: str, name: str) -> dict[str, str]:
    classes = [node for node in _read_module(path).body if isinstance(node, ast.ClassDef) and node.name == name]
    body = classes[0].body if classes else []
    return {
        node.target.id: " ".join(after.value.value.split())
        for node, after in itertools.pairwise(body)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
    }
