"""The versioned JSON files that describe a folder: the manifest of a dataset, the metadata of a bundle, ..."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from shards.errors import ShardError, explain_invalid

Page = TypeVar("Page", bound=BaseModel)


def read_page(path: Path, kind: type[Page], remedy: str) -> Page:
    """Return the content of the file at `path`; raises like `parse_page`."""
    return parse_page(path.read_bytes(), path, kind, remedy)


def parse_page(data: bytes, where: object, kind: type[Page], remedy: str) -> Page:
    """Return the parsed metadata; `kind` has a field `version` whose default is the only version that can be read.

    Raises:
        ShardError: The version differs (the message names both) or the file is damaged; `remedy` is the sentence's
        remedy.
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
    """Return what is wrong, in one line: the parse error, or the first field that does not fit."""
    return explain_invalid(err) if isinstance(err, ValidationError) else str(err).splitlines()[0]
