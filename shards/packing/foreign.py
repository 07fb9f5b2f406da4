"""Foreign WebDataset tars become a dataset in place: an index beside each, the shard table, the manifest."""

from __future__ import annotations

import hashlib
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from shards.audit.examine import Progress
from shards.cli.sentences import count_things
from shards.dataset.index import INDEX_SCHEMA, build_table, encode_table, index_name
from shards.dataset.manifest import (
    INDEXED,
    MANIFEST_NAME,
    Audited,
    Manifest,
    Packing,
    read_manifest,
)
from shards.errors import UsageError
from shards.files.fingerprint import fingerprint_file, fingerprint_json, hash_bytes
from shards.packing.positive import refuse_misfit
from shards.packing.probe import probe
from shards.packing.publish import seal
from shards.pictures.decode import DecodeOptions
from shards.pictures.decoding import VERSION as DECODING
from shards.sources.class_names import name_classes
from shards.sources.folder import scan_folder
from shards.sources.model import SPLITS, Source, SourceList
from shards.sources.webdataset import find_tars, list_tars, name_tar, split_key
from shards.splits.splits import SplitOptions
from shards.storage.storage import FolderStorage

PURE = 0.9
"""Share of its largest class from which a shard counts as a single-class shard."""


def index_foreign(
    folder: Path,
    *,
    class_names: Path | None = None,
    positive: str | None = None,
    progress: Progress = lambda *_: None,
) -> tuple[Manifest, list[str]]:
    """Make a folder of WebDataset tars a dataset, in place; return its manifest and notes for the user.

    The tars are not changed. A tar whose name has no split is train. `dataset.json` is written last.

    Args:
        folder: Folder of tars, see `list_tars`.
        class_names: File of display names.
        positive: The positive class; None keeps that of an earlier index, if any.
        progress: Called after each tar.

    Raises:
        UsageError: No tars, a folder with a packed dataset, or a positive class that the tars do not have.
        ShardError: A damaged tar, or a picture without a label.
        OSError: The folder cannot be written.
    """
    before = _read_index(folder)
    tars = find_tars(entry.name for entry in scan_folder(folder).entries)
    if not tars:
        raise UsageError(f"{folder} holds no tars to index; to pack pictures, use `python -m shards pack`")
    listed = list_tars(folder, tars)
    if class_names is not None:
        listed = replace(listed, display_names=name_classes(class_names, listed.classes))
    refuse_misfit(positive, listed)
    if positive is None and before and before.positive in listed.classes:
        positive = before.positive
    storage = FolderStorage(folder)
    with storage.locked():
        storage.delete([MANIFEST_NAME])  # there is no dataset while indexes change
        shards = _deal(listed.sources)
        rows, unreadable = _write_indexes(storage, shards, listed, progress)
        manifest = seal(storage, rows, _draft(rows, listed, positive))
    return manifest, [*listed.notes, *_describe_splits(listed), *_describe_mix(folder, rows), *unreadable]


@dataclass(frozen=True)
class _Shard:
    """One tar and its pictures."""

    split: str
    tar: str
    sources: Sequence[Source]


def _read_index(folder: Path) -> Manifest | None:
    """Return the manifest of a folder that was indexed before; raises UsageError like `index_foreign`."""
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}; give the folder of the tars")
    if not (folder / MANIFEST_NAME).is_file():
        return None
    manifest = read_manifest(folder)
    if not manifest.packing.plan.startswith(INDEXED):
        raise UsageError(f"{folder} is already a packed dataset with its own index; there is nothing to do")
    return manifest


def _deal(sources: Sequence[Source]) -> list[_Shard]:
    """Return the shards in the order of the table: by split, then by name."""
    by_tar: dict[str, list[Source]] = {}
    for source in sources:
        by_tar.setdefault(name_tar(source), []).append(source)
    shards = [_Shard(members[0].split or "train", tar, members) for tar, members in by_tar.items()]
    return sorted(shards, key=lambda shard: (SPLITS.index(shard.split), shard.tar))


def _write_indexes(
    storage: FolderStorage, shards: Sequence[_Shard], listed: SourceList, progress: Progress
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the shard table's rows, and a note if pictures cannot be opened."""
    labels = {label: number for number, label in enumerate(listed.classes)}
    rows: list[dict[str, Any]] = []
    bad: list[str] = []
    first_id = 0
    for shard in shards:
        samples = [
            _describe(source, first_id + number, labels, data, shard.tar)
            for number, (source, data) in enumerate(listed.store.read_in_order(shard.sources))
        ]
        bad += [sample["source"] for sample in samples if not sample["mode"]]
        index = encode_table(build_table(samples, INDEX_SCHEMA))
        storage.write(index_name(shard.tar), index)
        rows.append(_summarise_shard(storage.root, shard, samples, len(labels), index))
        first_id += len(samples)
        progress("index", first_id, len(listed.sources), rows[-1]["bytes"])
    return rows, _describe_bad(storage.root, bad)


def _describe(source: Source, sample_id: int, labels: dict[str, int], data: bytes, tar: str) -> dict[str, Any]:
    numbers = [labels[label] for label in source.labels]
    width, height, mode = _measure(data)
    return {
        "sample_id": sample_id,
        "key": split_key(source.name.removeprefix(f"{tar}/"))[0],
        "offset": source.offset,
        "length": source.size,
        "label": numbers[0] if len(numbers) == 1 else -1,
        "labels": numbers,
        "weight": source.weight,
        "group": source.group,
        "width": width,
        "height": height,
        "mode": mode,
        "bytes_xxh3": hash_bytes(data),
        "pixels_xxh3": "",
        "source": source.name,
    }


def _measure(data: bytes) -> tuple[int, int, str]:
    """Return width, height and mode of an encoded picture as stored; zeros if it cannot be opened."""
    facts = probe(data)
    if facts is not None:
        return facts.width, facts.height, facts.mode
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.width, image.height, image.mode
    except Exception:  # Pillow raises nearly every error type on hostile bytes
        return 0, 0, ""


def _summarise_shard(
    root: Path, shard: _Shard, samples: list[dict[str, Any]], num_classes: int, index: bytes
) -> dict[str, Any]:
    counts = [0] * num_classes
    for sample in samples:
        for label in sample["labels"]:
            counts[label] += 1
    return {
        "split": shard.split,
        "name": shard.tar,
        "bytes": (root / shard.tar).stat().st_size,
        "count": len(samples),
        "first_id": samples[0]["sample_id"],
        "class_counts": counts,
        "sha256": fingerprint_file(root / shard.tar),
        "index_sha256": hashlib.sha256(index).hexdigest(),
    }


def _draft(rows: list[dict[str, Any]], listed: SourceList, positive: str | None) -> Manifest:
    identity = fingerprint_json([[row["name"], row["sha256"]] for row in rows])
    return Manifest(
        classes=listed.classes,
        display_names=listed.display_names,
        task=listed.task,
        positive=positive,
        splits={},
        packing=Packing(
            shard_bytes=max(row["bytes"] for row in rows),
            split=SplitOptions(shares={}),
            decode=DecodeOptions(),
            plan=INDEXED + identity,
        ),
        audited=Audited(level="none"),
        table_sha256="",
        quarantined=0,
        decoding=DECODING,
    )


def _describe_splits(listed: SourceList) -> list[str]:
    if any(source.split for source in listed.sources):
        return []
    return ["no tar names a split, so all pictures are train; put val or test into the names of those to hold out"]


def _describe_mix(folder: Path, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a warning if shards hold one class each: a batch from few shards is then not a fair sample."""
    shares = [max(row["class_counts"]) / sum(row["class_counts"]) for row in rows]
    largest = {row["class_counts"].index(max(row["class_counts"])) for row in rows}
    median = statistics.median(shares)
    if median < PURE or len(largest) == 1:  # well-mixed shards look the same if one class dominates the set
        return []
    return [
        f"the shards hold one class each (half of them have {median:.0%} or more of a single class), so batches "
        f"that draw from few shards see few classes, and training suffers; `python -m shards pack {folder} OUT` "
        "shuffles the samples by a seeded permutation"
    ]


def _describe_bad(folder: Path, bad: Sequence[str]) -> list[str]:
    if not bad:
        return []
    are = count_things(len(bad), "picture cannot", "pictures cannot")
    return [
        f"{are} be opened (the first is {bad[0]}), and training stops at such a picture; "
        f"`python -m shards pack {folder} OUT` leaves them out"
    ]
