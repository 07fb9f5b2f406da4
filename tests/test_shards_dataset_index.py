"""The shard table of very many shards: names and counts are found without an object of Python for each."""

from __future__ import annotations

import tracemalloc
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.dataset.index import build_shards, encode_table, index_name, parse_shards
from shards.dataset.split import Split

NAMES = st.text(alphabet="ab.-_/ é", min_size=1, max_size=12).map(lambda text: f"{text}x.tar")


@given(NAMES)
@pytest.mark.parametrize("ending", ["", ".gz", ".tar"])
def test_index_of_a_shard_has_its_path_and_another_ending(ending: str, name: str) -> None:
    expected = PurePosixPath(name + ending).with_suffix(".index.parquet").as_posix()
    assert index_name(name + ending) == expected


def make_split(counts: list[list[int]]) -> Split:
    rows = [
        {
            "split": "train",
            "name": f"train/{number:06d}.tar",
            "bytes": 10 + number,
            "count": sum(row),
            "first_id": 0,
            "class_counts": row,
            "sha256": f"{number:064x}",
            "index_sha256": f"{number + 16:064x}",
        }
        for number, row in enumerate(counts)
    ]
    table = build_shards(rows)
    return Split("/nowhere", "train", parse_shards(encode_table(table), "here"))


def test_classes_are_counted_for_each_shard() -> None:
    split = make_split([[1, 2, 3], [4, 0, 6]])
    assert split.class_counts.tolist() == [[1, 2, 3], [4, 0, 6]]
    assert split.class_counts.dtype == np.int64
    split = Split("/nowhere", "train", pa.concat_tables([split.table, split.table.slice(1)]))
    assert split.class_counts.tolist() == [[1, 2, 3], [4, 0, 6], [4, 0, 6]]


def test_unlabelled_shards_have_no_classes() -> None:
    assert make_split([[], []]).class_counts.shape == (2, 0)


def test_a_shards_files_are_those_of_its_row() -> None:
    split = make_split([[1], [2], [3]])
    tar, index = split.wanted_shard(2), split.wanted_index(2)
    assert (tar.name, tar.sha256, tar.size) == ("train/000002.tar", f"{2:064x}", 12)
    assert (index.name, index.sha256, index.size) == ("train/000002.index.parquet", f"{18:064x}", None)


def test_looking_up_a_shard_and_counting_classes_makes_no_object_for_each_shard() -> None:
    split = make_split([[number, 1000 - number] for number in range(1000)] * 5)
    tracemalloc.start()
    try:
        split.wanted_shard(4000), split.wanted_index(4000)
        assert split.class_counts[4001].tolist() == [1, 999]
        assert tracemalloc.get_traced_memory()[1] < 200_000  # 80,000 are the counts; lists of names took 1,500,000
    finally:
        tracemalloc.stop()
