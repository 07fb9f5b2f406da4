"""The pictures and the token that the command is told of."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from cluster.client.talks import check_header
from shards.errors import UsageError
from shards.sources.walk import walk_pictures

TOKEN_VARIABLE: Final = "SHARDLINE_TOKEN"  # noqa: S105, its name


def find_pictures(named: Sequence[Path]) -> list[Path]:
    """Return the named files, and the pictures below the named folders by their endings, sorted by name.

    Raises:
        UsageError: A path is neither a file nor a folder, or a folder has no picture.
        OSError: A folder cannot be listed.
    """
    return [picture for path in named for picture in _find(path)]


def _find(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        if not path.is_file():
            raise UsageError(f"{path} is not a file or folder; give pictures, for example {path.parent / '*.jpg'}")
        yield path
        return
    pictures = walk_pictures(str(path))
    first = next(pictures, None)
    if first is None:
        raise UsageError(f"{path} has no picture; give a folder of pictures, or name the files")
    yield path / first
    yield from (path / name for name in pictures)


def read_token(file: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the token in a file, or without one that of SHARDLINE_TOKEN; None if there is none.

    Raises:
        UsageError: The file cannot be read, or holds no token.
    """
    if file is None:
        found = environment.get(TOKEN_VARIABLE)
        return check_header(TOKEN_VARIABLE, found.strip()) if found else None
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as err:
        raise UsageError(f"--token-file {file} cannot be read ({err}); give a file with one token") from err
    return check_header(f"the token in {file}", text)
