"""The files below a folder as a stream, in the order of their names."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from shards.sources.endings import ENDINGS, is_ignored, read_ending

Identity = tuple[int, int]
"""What two links to one folder have in common."""


def walk_pictures(root: str) -> Iterator[str]:
    """Yield the pictures below a folder by name, in the order of `list_pictures`; see `walk_files`."""
    return walk_files(root, ENDINGS)


def walk_files(root: str, endings: Collection[str]) -> Iterator[str]:
    """Yield the files with such endings below a folder, sorted, holding one folder's names at a time.

    As in `scan_folder`, links are followed and a real folder is visited once. A link to nowhere is yielded as well.

    Raises:
        OSError: A folder that cannot be listed.
    """
    absolute = Path(root).absolute()
    return _walk_lazily(root, "", endings, {identify(os.fspath(folder)) for folder in absolute.parents})


def _walk_lazily(folder: str, prefix: str, endings: Collection[str], seen: set[Identity]) -> Iterator[str]:
    identity = identify(folder)
    if identity in seen:
        return
    seen.add(identity)
    with os.scandir(folder) as listing:
        found = sorted((entry.name, entry.is_dir()) for entry in listing if not is_ignored(entry.name))
    for name, is_folder in found:
        path = f"{folder}/{name}"
        if is_folder:
            yield from _walk_lazily(path, f"{prefix}{name}/", endings, seen)
        elif read_ending(name) in endings and (os.path.isfile(path) or not os.path.exists(path)):
            yield prefix + name


def identify(folder: str) -> Identity:
    facts = os.stat(folder)
    return facts.st_dev, facts.st_ino
