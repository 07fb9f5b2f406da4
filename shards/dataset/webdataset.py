"""The shards of a split as a `webdataset.WebDataset`, for pipelines built on that library."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import webdataset

from shards.dataset.read import SampleReader
from shards.dataset.split import Split
from shards.errors import DecodeError, ShardError
from shards.files.fingerprint import hash_bytes
from shards.storage.access import open_access

_COLUMNS = ["key", "length", "label", "labels", "bytes_xxh3"]
Row = dict[str, Any]


def open_webdataset(split: Split, shuffle: int, seed: int) -> webdataset.WebDataset:
    """Return the pipeline; see `Split.webdataset`."""
    access = open_access(split.location, split.cache)
    try:
        leases = [access.lease(split.wanted_shard(shard)) for shard in range(len(split.counts))]
    finally:
        access.close()  # its threads; what is leased stays
    paths = [str(lease.path) for lease in leases]
    dataset = webdataset.WebDataset(
        paths,
        shardshuffle=len(paths) if shuffle else False,
        detshuffle=bool(shuffle),
        seed=seed,
        nodesplitter=webdataset.split_by_node,
        workersplitter=webdataset.split_by_worker,
        rename_files=_escape,
        empty_check=False,  # some workers have none if there are more workers than shards
    )
    known = _Known(split, {path: shard for shard, path in enumerate(paths)})
    dataset = dataset.compose(known)
    if shuffle:
        dataset = dataset.compose(webdataset.detshuffle(shuffle, initial=shuffle, seed=seed))
    # Not as an attribute: spawned workers get a copy of the pipeline, and locks cannot be copied.
    weakref.finalize(dataset, _close_all, leases)
    return dataset


def _close_all(leases: list[Any]) -> None:
    for lease in leases:
        lease.close()


def _escape(name: str) -> str:
    """Escape all dots in a member's name except that of its ending: webdataset ends keys at the first dot.

    >>> _escape("a/patient.1.png"), _unescape("a/patient%2E1")
    ('a/patient%2E1.png', 'a/patient.1')
    """
    key, dot, ending = name.rpartition(".")
    return f"{key.replace('%', '%25').replace('.', '%2E')}{dot}{ending}"


def _unescape(key: str) -> str:
    return key.replace("%2E", ".").replace("%25", "%")


class _Known:
    """A pipeline stage that adds what the index knows about each tar's samples; picklable."""

    def __init__(self, split: Split, shards: dict[str, int]) -> None:
        self._split, self._shards = split, shards
        self._open: tuple[str, dict[str, Row]] = ("", {})

    def __call__(self, source: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the samples in the dataset, with image and label added; other samples of foreign tars are skipped."""
        for sample in source:
            key = _unescape(sample["__key__"])
            row = self._rows(sample["__url__"]).get(key)
            if row is not None:
                yield self._complete({**sample, "__key__": key}, row)

    def _complete(self, sample: dict[str, Any], row: Row) -> dict[str, Any]:
        """Return the sample with `image` uint8[H, W, 3], decoded as everywhere in the project, and `label`.

        Raises:
            ShardError: The picture differs from the packed one, or cannot be decoded.
        """
        where = f"{sample['__url__']} key {sample['__key__']}"
        data = next((each for each in sample.values() if _is_of(each, row)), None)
        if data is None:
            raise ShardError(
                f"{where}: its bytes are not those that were packed; restore the shard from a backup or pack again"
            )
        try:
            image = self._split.decode_picture(data)
        except DecodeError as err:
            raise DecodeError(f"{where}: {err}", err.kind) from err
        label = row["labels"] if self._split.task == "multi-label" else row["label"]
        return {**sample, "image": image, "label": label}

    def _rows(self, url: str) -> dict[str, Row]:
        if self._open[0] != url:
            with SampleReader(self._split) as reader:
                table = reader.read_columns(_COLUMNS, [self._shards[url]])
            self._open = url, {row["key"]: row for row in table.to_pylist()}
        return self._open[1]


def _is_of(entry: object, row: Row) -> bool:
    return isinstance(entry, bytes) and len(entry) == row["length"] and hash_bytes(entry) == row["bytes_xxh3"]
