"""Which pictures of a source a dataset has already: by name, by the file that a name leads to, or by its bytes."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from shards.dataset.origin import PackCommand
from shards.files.fingerprint import hash_bytes
from shards.sources.model import Source, Store


def match_sources(old: Sequence[Source], new: Sequence[Source], roots: Iterable[Path], root: Path | None) -> list[int]:
    """Return for each new picture which of the old ones it is, -1 for none.

    A picture is an old one when it has its name; else when both names lead to one file, however they are spelt. Links
    to folders are followed; a link to a file is a picture of its own, as when it is packed first.

    Args:
        roots: Folders or archives below which the names of the old ones may lie.
        root: That of the new ones, None where they are no files.
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
    """Return `matched` with the old pictures that lie in another folder now: of one file name and byte for byte equal.

    Args:
        hashes: Of the bytes of the old ones.
        matched: Which of the old ones each new picture is, -1 for none.
        store: Of the new ones; only those are read that may be meant.
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
    """Return below which folders or archives the names of packed pictures lie, as far as these are there still."""
    roots: list[Path] = []
    for command in commands:
        # Names of an archive lie in it; those of a list or of a tar of samples beside it, or below the list's base.
        source, words = Path(command.source), command.options
        roots += [source] if source.is_dir() else [source.parent, source]
        roots += [Path(words[place + 1]) for place, word in enumerate(words) if word == "--base"]
    return [root for root in roots if root.exists()]


class _Places:
    """Absolute names without links to folders; each folder is looked up once."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def find(self, root: Path, name: str) -> str:
        folder, file = os.path.split(os.path.join(root, name))
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return f"{self._folders[folder]}/{file}"
