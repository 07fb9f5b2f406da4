"""Which pictures of a source a dataset already has: by name, by the file behind a name, or by bytes."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from shards.dataset.origin import PackCommand
from shards.files.fingerprint import hash_bytes
from shards.sources.model import Source, Store


def match_sources(old: Sequence[Source], new: Sequence[Source], roots: Iterable[Path], root: Path | None) -> list[int]:
    """Return for each new picture its row among the old ones, -1 for none.

    A new picture is an old one if it has the same name, or if both names lead to one file, however they are spelt.
    Links to folders are followed; a link to a file is a picture of its own, as in a first pack.

    Args:
        roots: Folders or archives that the names of the old pictures may be relative to.
        root: That of the new pictures, None if they are not files.
    """
    rows = {source.name: row for row, source in enumerate(old)}
    matched = [rows.get(source.name, -1) for source in new]
    left = [row for row, source in enumerate(new) if matched[row] < 0]
    unmatched = set(range(len(old))).difference(matched)
    if root is None or not left or not unmatched:
        return matched
    places = _Places()
    old_places: dict[str, int] = {}
    for each in dict.fromkeys([*roots, root]):
        for row in sorted(unmatched):
            old_places.setdefault(places.find(each, old[row].name), row)
    for row in left:
        matched[row] = old_places.get(places.find(root, new[row].name), -1)
    return matched


def match_moved(
    old: Sequence[Source], hashes: Sequence[str], new: Sequence[Source], matched: Sequence[int], store: Store
) -> list[int]:
    """Return `matched` with old pictures that are in another folder now: same file name and same bytes.

    Args:
        hashes: Of the bytes of the old pictures.
        matched: The old row of each new picture, -1 for none.
        store: Of the new pictures; only possible matches are read.
    """
    lost: defaultdict[tuple[str, int], dict[str, int]] = defaultdict(dict)
    for row in sorted(set(range(len(old))).difference(matched)):
        lost[_describe(old[row])].setdefault(hashes[row], row)
    asked = {source.name: row for row, source in enumerate(new) if matched[row] < 0 and _describe(source) in lost}
    found = list(matched)
    for source, data in store.read_in_order(new[row] for row in asked.values()):
        found[asked[source.name]] = lost[_describe(source)].pop(hash_bytes(data), -1)
    return found


def _describe(source: Source) -> tuple[str, int]:
    return os.path.basename(source.name), source.size


def list_roots(commands: Iterable[PackCommand]) -> list[Path]:
    """Return the folders or archives that names of packed pictures are relative to, as far as they still exist."""
    roots: list[Path] = []
    for command in commands:
        # Names in an archive are relative to it; those of a list or of a tar of samples, to its folder or the list's
        # base.
        source, words = Path(command.source), command.options
        roots += [source] if source.is_dir() else [source.parent, source]
        roots += [Path(words[place + 1]) for place, word in enumerate(words) if word == "--base"]
    return [root for root in roots if root.exists()]


class _Places:
    """Absolute names with links to folders resolved; each folder is resolved once."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def find(self, root: Path, name: str) -> str:
        folder, file = os.path.split(os.path.join(root, name))
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return f"{self._folders[folder]}/{file}"
