"""The versioned JSON pages that make a folder a dataset, a bundle, ..."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from shards.errors import ShardError, explain_invalid

Page = TypeVar("Page", bound=BaseModel)


def read_page(path: Path, kind: type[Page], remedy: str) -> Page:
    """Return the page at `path`; raises as `parse_page`."""
    return parse_page(path.read_bytes(), path, kind, remedy)


def parse_page(data: bytes, where: object, kind: type[Page], remedy: str) -> Page:
    """Return the page, of a model whose field `version` has the one version that this program reads.

    Raises:
        ShardError: Another version, with both named, or a damaged page; `remedy` says what to do.
    """
    try:
        content = json.loads(data)
        version = kind.model_fields["version"].default
        if isinstance(content, dict) and content.get("version") != version:
            raise ShardError(
                f"{where} is of version {content.get('version')}, this program reads version {version}; "
                f"{remedy}, or use the program that made it"
            )
        return kind.model_validate(content)
    except (json.JSONDecodeError, UnicodeDecodeError, ValidationError) as err:
        raise ShardError(f"{where} is damaged ({_explain(err)}); {remedy}") from err


def _explain(err: ValueError) -> str:
    """Return what is wrong, in a line: of a page that can be read the first field that does not fit."""
    return explain_invalid(err) if isinstance(err, ValidationError) else str(err).splitlines()[0]
