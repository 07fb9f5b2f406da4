"""The files below a folder as a stream, sorted by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from shards.sources.content import is_picture
from shards.sources.endings import is_ignored, read_ending

Identity = tuple[int, int]
"""Device and inode, equal for all links to a folder."""
Takes = Callable[[str, str], bool]
"""Name and path of a file -> whether it is yielded."""


def walk_pictures(root: str) -> Iterator[str]:
    """Yield the pictures below a folder by name, in the order of `list_pictures`; see `walk_files`."""
    return _walk(root, is_picture)


def walk_files(root: str, endings: Collection[str]) -> Iterator[str]:
    """Yield the files with these endings below a folder, sorted, holding the names of one folder at a time.

    As in `scan_folder`, links are followed and a real folder is visited once. Broken links are yielded as well.

    Raises:
        OSError: A folder that cannot be listed.
    """
    return _walk(root, lambda name, _: read_ending(name) in endings)


def is_folder(found: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, following links; a circular link is not."""
    try:
        return found.is_dir()
    except OSError:
        return False


def identify(folder: str) -> Identity:
    facts = os.stat(folder)
    return facts.st_dev, facts.st_ino


def _walk(root: str, takes: Takes) -> Iterator[str]:
    absolute = Path(root).absolute()
    return _walk_lazily(root, "", takes, {identify(os.fspath(folder)) for folder in absolute.parents})


def _walk_lazily(folder: str, prefix: str, takes: Takes, seen: set[Identity]) -> Iterator[str]:
    identity = identify(folder)
    if identity in seen:
        return
    seen.add(identity)
    with os.scandir(folder) as listing:
        found = sorted((entry.name, is_folder(entry)) for entry in listing if not is_ignored(entry.name))
    for name, has_more in found:
        path = f"{folder}/{name}"
        if has_more:
            yield from _walk_lazily(path, f"{prefix}{name}/", takes, seen)
        elif takes(name, path) and (os.path.isfile(path) or not os.path.exists(path)):
            yield prefix + name
