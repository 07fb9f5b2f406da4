"""WebDataset tars of any origin: a sample is a series of files with one key, a picture and files with its label."""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.errors import ShardError, UsageError
from shards.sources.endings import ENDINGS, is_ignored, read_ending
from shards.sources.layout import sort_sources
from shards.sources.model import Source, SourceList
from shards.sources.split_words import describe_splits, is_usual, read_splits
from shards.sources.tars import LateFile, Member, PassedTar, open_tar, read_exactly

_LABEL_ENDINGS = (".json", ".cls", ".txt")
"""In order of preference: only JSON can hold several labels, a group and a weight."""
_LABEL_BYTES = 1 << 20
_TARS_KEPT = 256
_TAR = re.compile(r".*?\.tar(?=/)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class _Facts:
    """Labels, group and weight from the files beside a picture."""

    labels: tuple[str, ...] = ()
    group: str = ""
    weight: float = 1.0


def holds_samples(names: Iterable[str]) -> bool:
    """Return whether a tar is a WebDataset shard: labels are beside pictures, with the same key.

    Text beside pictures in class folders may be captions or boxes, so a `.cls` file is required there.
    """
    files = {split_key(name) for name in names if not _is_hidden(name)}
    pictures = [key for key, ending in files if ending in ENDINGS]
    folders = {key.rpartition("/")[0] for key in pictures}
    endings = _LABEL_ENDINGS if len(folders) == 1 else (".cls",)
    return any((key, ending) in files for key in pictures for ending in endings)


def find_tars(names: Iterable[str]) -> list[str]:
    """Return the uncompressed tars among file names, sorted."""
    return sorted(name for name in names if read_ending(name) == ".tar")


def split_key(name: str) -> tuple[str, str]:
    """Return key and ending of a member; the key extends to the last dot, so that names with dots stay distinct.

    >>> split_key("a/patient.1.JPEG")
    ('a/patient.1', '.jpeg')
    """
    ending = read_ending(name)
    return name[: len(name) - len(ending)], ending


def list_tars(root: Path, tars: Sequence[str], *, unlabelled: bool = False, incomplete: bool = False) -> SourceList:
    """Return the pictures of WebDataset tars; their names are `TAR/KEY.ENDING`.

    A tar's split comes from a folder above it or a word of its file name, as in `imagenet-val-0001.tar`. Classes that
    are numbers are sorted numerically. Group and weight come from JSON, if it has them.

    Args:
        root: Folder of the tars.
        tars: Their names below it.

    Raises:
        UsageError: Only some of the tars name a split, or as `check_classes`.
        ShardError: A damaged tar, a picture without a label, or two pictures with one name.
    """
    nested = next((tar for tar in tars if ".tar/" in tar.lower()), None)
    if nested:
        raise UsageError(f"{root}: the folder of '{nested}' has the name of a tar; rename the folder")
    splits, notes = _read_splits(root, tars, unlabelled)
    sources: list[Source] = []
    for tar in tars:
        sources += list_tar(root, tar, splits[tar], unlabelled=unlabelled)
    if not sources:
        raise UsageError(f"{root} holds {len(tars):,} tars without pictures (looked for {', '.join(sorted(ENDINGS))})")
    classes, several = sort_sources(root, sources, unlabelled, incomplete)
    return SourceList(sources, classes, {}, TarFolderStore(root), list(classes), several, notes, root)


def _read_splits(root: Path, tars: Sequence[str], unlabelled: bool) -> tuple[dict[str, str | None], list[str]]:
    """Return the split of each tar, and a note if names are unusual."""
    if unlabelled:
        return dict.fromkeys(tars, "all"), []
    words = name_splits(tars)
    found = read_splits([word for word in words.values() if word], affixes=True)
    splits = {tar: found.get(word) if word else None for tar, word in words.items()}
    if found and None in splits.values():
        odd = next(tar for tar, split in splits.items() if split is None)
        raise UsageError(
            f"{root}: '{odd}' names no split but other tars do; put train, val or test into the name or folder of all"
        )
    return splits, describe_splits(found, "the names of tars")


def name_splits(tars: Sequence[str]) -> dict[str, str | None]:
    """Return the word in the folders or name of each tar that gives its split, None if there is none.

    Words other than train, val (valid, validation) and test occur in many names, so they count only if all tars have
    one and some of them are train.

    >>> name_splits(["validation/0.tar", "imagenet-val-0001.tar", "trainers-0.tar"])
    {'validation/0.tar': 'validation', 'imagenet-val-0001.tar': 'val', 'trainers-0.tar': None}
    >>> name_splits(["seg_train/0.tar", "testing-0.tar"]), name_splits(["dev-0.tar", "prod-0.tar"])
    ({'seg_train/0.tar': 'seg_train', 'testing-0.tar': 'testing'}, {'dev-0.tar': None, 'prod-0.tar': None})
    """
    parts = {tar: [*tar.split("/")[:-1], *re.split(r"[-_. ]", tar.rpartition("/")[2])] for tar in tars}
    usual = {tar: next(filter(is_usual, words), None) for tar, words in parts.items()}
    loose = {tar: next((w for w in words if read_splits([w], affixes=True)), None) for tar, words in parts.items()}
    read = read_splits([word for word in loose.values() if word], affixes=True)
    return loose if None not in loose.values() and "train" in read.values() else usual


def list_tar(root: Path, tar: str, split: str | None, *, unlabelled: bool = False) -> list[Source]:
    """Return the pictures of one tar in stored order; raises ShardError like `list_tars`."""
    path = root / tar
    facts: dict[str, dict[str, _Facts]] = {}
    pictures: dict[str, Member] = {}
    with open_tar(path) as file:
        passed = PassedTar(path, file)
        for member in passed:
            key, ending = split_key(member.name)
            if not member.plain or _is_hidden(member.name):
                continue
            if ending in ENDINGS:
                if member.name in pictures:
                    raise ShardError(f"{path} holds '{member.name}' twice; write the shard again")
                pictures[member.name] = member
            elif ending in _LABEL_ENDINGS and not unlabelled and member.size <= _LABEL_BYTES:
                facts.setdefault(key, {})[ending] = _parse(path, member.name, passed.read(member))
    stamp = path.stat().st_mtime_ns
    return [
        _make(tar, member, split, stamp, _choose(path, member.name, facts, unlabelled)) for member in pictures.values()
    ]


def _is_hidden(name: str) -> bool:
    return any(is_ignored(part) for part in name.split("/"))


def _make(tar: str, member: Member, split: str | None, stamp: int, facts: _Facts) -> Source:
    return Source(
        f"{tar}/{member.name}", facts.labels, split, member.size, stamp, member.offset, facts.weight, facts.group
    )


def _choose(path: Path, name: str, facts: dict[str, dict[str, _Facts]], unlabelled: bool) -> _Facts:
    if unlabelled:
        return _Facts()
    key = split_key(name)[0]
    beside = facts.get(key, {})
    chosen = next((beside[ending] for ending in _LABEL_ENDINGS if ending in beside and beside[ending].labels), None)
    if chosen is None:
        raise ShardError(
            f"{path}: '{name}' has no label: there is no {key}.cls, no {key}.txt and no {key}.json with "
            '"label"; write the shard again, or give --unlabelled'
        )
    return chosen


def _parse(path: Path, name: str, data: bytes) -> _Facts:
    try:
        text = data.decode()
        if not name.lower().endswith(".json"):
            label = text.strip()
            return _Facts((label,) if label else ())
        return _read_page(json.loads(text))
    except ValueError as err:
        raise ShardError(f"{path}: '{name}' gives no label ({err}); write the shard again") from err


def _read_page(page: Any) -> _Facts:
    """Return the labels, group and weight in a JSON file beside a picture; no labels if it has other content.

    Raises:
        ValueError: A label, group or weight of an invalid type.
    """
    if not isinstance(page, dict):
        return _Facts()
    labels = page["labels"] if "labels" in page else [page["label"]] if "label" in page else []
    if not isinstance(labels, list) or any(
        isinstance(label, bool) or not isinstance(label, str | int) for label in labels
    ):
        raise ValueError(f"a label is text or an integer, got {labels!r}")
    group, weight = page.get("group", ""), page.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
        raise ValueError(f"a weight is a number above 0, got {weight!r}")
    names = dict.fromkeys(str(label).strip() for label in labels)
    return _Facts(tuple(name for name in names if name), "" if group is None else str(group), float(weight))


class TarFolderStore:
    """Pictures in the uncompressed tars of a folder, at most 256 of them open at a time."""

    random_access = True

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._files: OrderedDict[str, LateFile] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return TarFolderStore, (self._root,)

    def read(self, source: Source) -> bytes:
        tar = name_tar(source)
        return read_exactly(self._root / tar, self._open(tar), source)

    def read_in_order(self, sources: Iterable[Source]) -> Iterator[tuple[Source, bytes]]:
        for source in sorted(sources, key=lambda source: (name_tar(source), source.offset)):
            yield source, self.read(source)

    def _open(self, tar: str) -> LateFile:
        with self._lock:
            if tar not in self._files:
                self._files[tar] = LateFile(self._root / tar)
                if len(self._files) > _TARS_KEPT:
                    self._files.popitem(last=False)  # closed when the last thread has read from it
            self._files.move_to_end(tar)
            return self._files[tar]


def name_tar(source: Source) -> str:
    """Return the tar of a picture listed by `list_tars`.

    >>> name_tar(Source("train/0.tar/a/1.jpg", (), None, 0))
    'train/0.tar'
    """
    match = _TAR.match(source.name)
    assert match is not None  # list_tar made the name
    return match.group()
