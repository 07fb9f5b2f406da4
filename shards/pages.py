"""The versioned JSON pages that make a folder a dataset, a bundle, ..."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from shards.errors import ShardError

Page = TypeVar("Page", bound=BaseModel)


def read_page(path: Path, kind: type[Page], remedy: str) -> Page:
    """Return the page at `path`, of a model whose field `version` has the one version that this program reads.

    Raises:
        ShardError: Another version, with both named, or a damaged page; `remedy` says what to do.
    """
    try:
        content = json.loads(path.read_bytes())
        version = kind.model_fields["version"].default
        if isinstance(content, dict) and content.get("version") != version:
            raise ShardError(
                f"{path} is of version {content.get('version')}, this program reads version {version}; "
                f"{remedy}, or use the program that made it"
            )
        return kind.model_validate(content)
    except (json.JSONDecodeError, UnicodeDecodeError, ValidationError) as err:
        raise ShardError(f"{path} is damaged ({str(err).splitlines()[0]}); {remedy}") from err
