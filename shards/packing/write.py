"""Shards on disk: each tar appears whole, and its index after it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from shards.audit.check import Checked, Progress
from shards.errors import ShardError
from shards.files import write_atomically
from shards.fingerprint import fingerprint_file
from shards.index import INDEX_SCHEMA, read_facts, write_table
from shards.packing.cut import ShardPlan
from shards.packing.tar import Member, TarWriter

ENDING_OF_FORMAT = {"jpeg": "jpg", "tiff": "tif", "jpeg2000": "jp2", "ppm": "ppm", "mpo": "jpg"}


def write_shards(
    plan: list[ShardPlan], classes: list[str], out: Path, identity: str, progress: Progress
) -> Iterator[dict[str, Any]]:
    """Yield the shard table's rows, writing each shard that is not there yet."""
    total = sum(len(shard.samples) for shard in plan)
    done = 0
    for shard in plan:
        path = out / shard.name
        index_path = path.with_suffix(".index.parquet")
        if not _is_finished(path, index_path, identity):
            path.parent.mkdir(exist_ok=True)
            _write_shard(shard, classes, path, index_path, identity)
        facts = read_facts(index_path)
        labels = [classes.index(item.source.label) for item in shard.samples]
        yield {
            "split": shard.split,
            "name": shard.name,
            "bytes": int(facts["bytes"]),
            "count": len(shard.samples),
            "first_id": shard.first_id,
            "class_counts": np.bincount(labels, minlength=len(classes)).tolist(),
            "sha256": facts["sha256"],
            "index_sha256": fingerprint_file(index_path),
        }
        done += len(shard.samples)
        progress("write", done, total, sum(item.length for item in shard.samples))


def _is_finished(path: Path, index_path: Path, identity: str) -> bool:
    """The index is written after its tar, so an index of this plan beside a tar of its size is a finished shard."""
    if not (path.is_file() and index_path.is_file()):
        return False
    try:
        facts = read_facts(index_path)
    except ShardError:
        return False
    return facts.get("plan") == identity and facts.get("bytes") == str(path.stat().st_size)


def _write_shard(shard: ShardPlan, classes: list[str], path: Path, index_path: Path, identity: str) -> None:
    rows: list[dict[str, Any]] = []
    with write_atomically(path) as file:
        writer = TarWriter(file)
        for sample_id, item in enumerate(shard.samples, start=shard.first_id):
            rows.append(_add_sample(writer, sample_id, item, classes))
        sha256 = writer.finish()
    write_table(index_path, rows, INDEX_SCHEMA, {"plan": identity, "bytes": str(writer.size), "sha256": sha256})


def _add_sample(writer: TarWriter, sample_id: int, item: Checked, classes: list[str]) -> dict[str, Any]:
    """Write one sample and return its index row."""
    source, picture = item.source, item.picture
    data = source.path.read_bytes()
    if xxhash.xxh3_128_hexdigest(data) != item.bytes_xxh3:
        raise ShardError(
            f"{source.path} changed while it was packed; nothing of it was published. Run the command again"
        )
    key, label = f"{sample_id:09d}", classes.index(source.label)
    ending = ENDING_OF_FORMAT.get(picture.format, picture.format)
    facts: dict[str, object] = {"label": source.label, "source": source.name, "weight": source.weight}
    offset = writer.add(Member(key, data, ending, label, facts))
    return {
        "sample_id": sample_id,
        "key": key,
        "offset": offset,
        "length": len(data),
        "label": label,
        "weight": source.weight,
        "group": "",
        "width": picture.width,
        "height": picture.height,
        "mode": picture.mode,
        "pixels_xxh3": picture.pixels_xxh3,
        "source": source.name,
    }
