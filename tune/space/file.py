"""Reads a space from YAML, with names of factors and levels as they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from shards.errors import UsageError, explain_invalid
from tune.space.options import Space

SPACES = Path(__file__).parent / "spaces"
_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


def load_space(location: str) -> Space:
    """Return the space of a YAML file, or of that name in tune/space/spaces.

    Raises:
        UsageError: No such space, or an invalid one.
    """
    path = next((path for path in (Path(location), SPACES / f"{location}.yaml") if path.is_file()), None)
    if path is None:
        names = ", ".join(sorted(path.stem for path in SPACES.glob("*.yaml")))
        raise UsageError(f"no space '{location}': neither a file nor one of {names}")
    try:
        return read_space(_parse(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as err:
        raise UsageError(f"{path} is not YAML: {' '.join(str(err).split())}") from err
    except UsageError as err:
        raise UsageError(f"{path}: {err}") from err


def read_space(content: Any) -> Space:
    """Return the space with this content; raises UsageError with one sentence about the first error."""
    try:
        return Space.model_validate(content)
    except ValidationError as err:
        raise UsageError(explain_invalid(err)) from err


def _parse(text: str) -> Any:
    """Parse YAML, with names of factors and levels as written: `no` is a name, not False.

    >>> _parse("factors: {pretrained: {yes: {epochs: 1}, 0x10: {freeze: no}}}")
    {'factors': {'pretrained': {'yes': {'epochs': 1}, '0x10': {'freeze': False}}}}
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        _take_names(node, 4)
        return loader.construct_document(node) if node is not None else None
    finally:
        loader.dispose()


def _take_names(node: yaml.Node | None, depth: int) -> None:
    """Turn the keys of mappings into text, down to `depth`: keys of the space, factors, levels, options.

    Raises:
        UsageError: A key stands twice in one mapping, of which YAML would keep only the last.
    """
    if not isinstance(node, yaml.MappingNode):
        return
    seen = set()
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
            if key.value in seen:
                raise UsageError(
                    f"'{key.value}' in line {key.start_mark.line + 1} stands twice in one place; rename or remove one"
                )
            seen.add(key.value)
            key.tag = _TEXT if depth > 0 else key.tag
        _take_names(value, depth - 1)
