"""Is a dataset still what was packed?"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shards.dataset import open_dataset
from shards.decode import inspect
from shards.errors import ShardError
from shards.fingerprint import fingerprint_file
from shards.index import INDEX_SCHEMA, read_table
from shards.read import SampleReader


def verify_dataset(folder: Path) -> int:
    """Hash every shard and index again and decode every picture; return the number of pictures.

    Raises:
        ShardError: A shard, index or picture that is not what was packed.
    """
    dataset = open_dataset(folder)
    count = 0
    for name in dataset.manifest.splits:
        split = dataset.split(name)
        with SampleReader(split) as reader:
            for shard, row in enumerate(split.table.to_pylist()):
                _verify_file(split.shard_path(shard), row["sha256"])
                _verify_file(split.index_path(shard), row["index_sha256"])
                recorded = read_table(split.index_path(shard), INDEX_SCHEMA)["pixels_xxh3"].to_pylist()
                for sample, expected in zip(reader.read(shard, np.arange(row["count"])), recorded, strict=True):
                    if inspect(sample.data, dataset.manifest.packing.decode).pixels_xxh3 != expected:
                        raise ShardError(f"{sample.where}: the pixels differ from those that were packed")
                    count += 1
    return count


def _verify_file(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise ShardError(f"{path} is missing; restore it from a backup or pack again")
    if fingerprint_file(path) != sha256:
        raise ShardError(
            f"{path}: sha256 differs from the shard table ({path.stat().st_size:,} bytes); "
            "the file changed after packing. Pack again, or restore it from a backup"
        )
