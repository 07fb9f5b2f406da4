from __future__ import annotations

import contextlib
import os
import pickle
import re
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import xxhash

from shards.dataset.dataset import open_dataset
from shards.dataset.read import SampleReader
from shards.dataset.split import Split
from shards.errors import ShardError, UsageError
from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.sources.find import find_sources

CLASSES = ["blue", "green", "red"]


@pytest.fixture
def copy(dataset_path: Path, tmp_path: Path) -> Path:
    """A dataset that a test may damage."""
    shutil.copytree(dataset_path, tmp_path / "copy")
    return tmp_path / "copy"


def train(path: Path) -> Split:
    return open_dataset(path).split("train")


def shard_path(split: Split, shard: int) -> Path:
    return Path(split.location) / split.shard_names[shard]


def index_path(split: Split, shard: int) -> Path:
    return shard_path(split, shard).with_suffix(".index.parquet")


def open_files() -> int:
    """Return how many tars this process has open; Ray's threads open and close files of their own beside the test."""
    targets = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed since it was listed
            targets.append(os.readlink(link))
    return sum(target.endswith(".tar") for target in targets)


def refusal(split: Split, shard: int = 0, row: int = 0) -> str:
    with SampleReader(split) as reader, pytest.raises(ShardError) as caught:
        reader.read_one(shard, row)
    return str(caught.value)


def test_sample_is_the_files_bytes_and_its_class(pictures: Path, dataset_path: Path) -> None:
    split = train(dataset_path)
    with SampleReader(split) as reader:
        for shard, count in enumerate(split.counts.tolist()):
            for sample in reader.read(shard, np.arange(count)):
                assert sample.data == (pictures / sample.source).read_bytes()
                assert CLASSES[sample.label] == sample.source.split("/")[1]


def test_reader_that_is_open_can_be_handed_to_a_spawned_worker(dataset_path: Path) -> None:
    with SampleReader(train(dataset_path)) as reader:
        ours = reader.read_one(1, 2)
        with pickle.loads(pickle.dumps(reader)) as copied:
            assert copied.read_one(1, 2) == ours
            assert copied is not reader


def test_rows_come_in_the_order_asked_for(dataset_path: Path) -> None:
    split = train(dataset_path)
    with SampleReader(split) as reader:
        samples = reader.read(1, np.array([2, 0, 2, 1]))
    assert [sample.sample_id - split.first_ids[1] for sample in samples] == [2, 0, 2, 1]


def test_one_sample_equals_that_sample_of_many(dataset_path: Path) -> None:
    with SampleReader(train(dataset_path)) as reader:
        assert reader.read_one(0, 1) == reader.read(0, np.array([1]))[0]


def test_error_place_names_shard_key_and_offset(dataset_path: Path) -> None:
    tar = dataset_path / "train/000000.tar"
    with tarfile.open(tar) as file:
        offset = next(member.offset_data for member in file if member.name.startswith("000000001."))
    with SampleReader(train(dataset_path)) as reader:
        assert reader.read_one(0, 1).where == f"{tar} key 000000001 at offset {offset:,}"


def test_threads_may_share_a_reader(dataset_path: Path) -> None:
    split = train(dataset_path)
    places = [(shard, row) for shard, count in enumerate(split.counts.tolist()) for row in range(count)] * 5
    with SampleReader(split) as reader, ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda place: reader.read_one(*place).sample_id, places))
    assert ids == [int(split.first_ids[shard]) + row for shard, row in places]


def test_cut_shard_is_refused_by_shard_key_and_offset(copy: Path) -> None:
    split = train(copy)
    row = pq.read_table(index_path(split, 2)).to_pylist()[1]
    os.truncate(shard_path(split, 2), row["offset"] + 10)
    assert refusal(split, 2, 1) == (
        f"{copy}/train/000002.tar key {row['key']}: the shard ends early (10 of {row['length']:,} bytes "
        f"at offset {row['offset']:,}); restore it from a backup or pack again"
    )


def test_samples_before_the_cut_can_still_be_read(copy: Path) -> None:
    split = train(copy)
    rows = pq.read_table(index_path(split, 2)).to_pylist()
    os.truncate(shard_path(split, 2), rows[1]["offset"])
    with SampleReader(split) as reader:
        assert len(reader.read_one(2, 0).data) == rows[0]["length"]


def test_missing_index_is_named(copy: Path) -> None:
    split = train(copy)
    index_path(split, 0).unlink()
    assert refusal(split) == f"{copy}/train/000000.index.parquet is missing; restore it from a backup or pack again"


def test_missing_shard_is_named(copy: Path) -> None:
    split = train(copy)
    shard_path(split, 0).unlink()
    assert f"{copy}/train/000000.tar cannot be opened (No such file or directory)" in refusal(split)


def test_damaged_index_is_named(copy: Path) -> None:
    split = train(copy)
    index_path(split, 0).write_bytes(b"PAR1 and then nothing")
    assert refusal(split).startswith(f"{copy}/train/000000.index.parquet cannot be read (")


def test_index_of_another_shard_is_noticed_by_its_rows(copy: Path) -> None:
    split = train(copy)
    counts = split.counts.tolist()
    other = next(shard for shard, count in enumerate(counts) if count != counts[0])
    shutil.copy(index_path(split, other), index_path(split, 0))
    assert f"has {counts[other]} rows, but the shard table has {counts[0]}" in refusal(split)


def test_table_in_place_of_an_index_is_noticed_by_its_columns(copy: Path) -> None:
    split = train(copy)
    shutil.copy(copy / "shards.parquet", index_path(split, 0))
    assert "has other columns than this version reads: split, name, bytes" in refusal(split)


def test_open_files_do_not_grow_with_what_is_read(dataset_path: Path) -> None:
    split = train(dataset_path)
    with SampleReader(split) as reader:
        shards = range(len(split.counts))
        for shard in shards:
            reader.read_one(shard, 0)
        before = open_files()
        for _ in range(20):
            for shard in shards:
                reader.read(shard, np.arange(split.counts[shard]))
        assert open_files() == before


def test_closing_gives_all_files_back(dataset_path: Path) -> None:
    split = train(dataset_path)
    before = open_files()
    with SampleReader(split) as reader:
        for shard in range(len(split.counts)):
            reader.read_one(shard, 0)
        assert open_files() == before + len(split.counts)
    assert open_files() == before


def test_at_most_256_shards_are_open(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "in/train" / name).mkdir(parents=True)
        for number in range(140):
            text = f"P5\n1 1\n255\n{chr(number % 90 + 33)}"
            (tmp_path / f"in/train/{name}/{number:03d}.pgm").write_text(text)
    pack(find_sources(tmp_path / "in"), tmp_path / "out", PackOptions(shard_bytes=1, allow_leaks=True))
    split = train(tmp_path / "out")
    before = open_files()
    with SampleReader(split) as reader:
        for shard in range(len(split.counts)):
            reader.read_one(shard, 0)
        assert (len(split.counts), open_files() - before) == (280, 256)


# opening


def test_unknown_split_is_answered_with_those_there_are(dataset_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"has no split 'dev'; it has train, val, test\. Name one of those, for example train"
    ):
        open_dataset(dataset_path).split("dev")


def test_missing_dataset_is_answered_with_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=re.escape(f"does not exist; make one with `python -m shards pack PICTURES {tmp_path}")
    ):
        open_dataset(tmp_path / "nowhere")


def test_folder_without_dataset_json_is_no_dataset(copy: Path) -> None:
    (copy / "dataset.json").unlink()
    remedy = f"(it has no dataset.json); make one with `python -m shards pack {copy} {copy}-shards`, and name that"
    with pytest.raises(UsageError, match=re.escape(remedy)):
        open_dataset(copy)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"version": 3', '"version": 2', "is of version 2, this program reads version 3; pack the pictures again"),
        ('"classes"', '"klasses"', "dataset.json is damaged"),
        ("{", "", "dataset.json is damaged"),
        ('"shardline-dataset"', '"something-else"', "dataset.json is damaged"),
    ],
)
def test_dataset_json_that_is_not_ours_is_refused(copy: Path, old: str, new: str, says: str) -> None:
    page = copy / "dataset.json"
    page.write_text(page.read_text().replace(old, new, 1))
    with pytest.raises(ShardError, match=says):
        open_dataset(copy)


def test_opening_reads_no_shard_and_no_index(copy: Path) -> None:
    for path in copy.glob("*/*"):
        path.unlink()
    assert open_dataset(copy).split("train").num_samples == 72


# damage


def change_byte(path: Path, place: int) -> None:
    with open(path, "r+b") as file:
        file.seek(place)
        old = file.read(1)[0]
        file.seek(place)
        file.write(bytes([old ^ 1]))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_picture_of_which_one_bit_changed_is_refused_and_the_others_are_read(copy: Path, share: float) -> None:
    """Wherever: a decoder would fill in what is missing, or see nothing."""
    split = train(copy)
    rows = pq.read_table(index_path(split, 0)).to_pylist()
    change_byte(shard_path(split, 0), rows[1]["offset"] + int(share * (rows[1]["length"] - 1)))
    assert refusal(split, 0, 1) == (
        f"{copy}/train/000000.tar key {rows[1]['key']} at offset {rows[1]['offset']:,}: its {rows[1]['length']:,} "
        "bytes are not those that were packed; restore the shard from a backup or pack again"
    )
    with SampleReader(split) as reader:
        others = [reader.read_one(0, row) for row in range(len(rows)) if row != 1]
    assert [len(sample.data) for sample in others] == [row["length"] for row in rows if row["sample_id"] != 1]


def test_index_keeps_the_hash_of_the_bytes_as_they_lie_in_the_tar(copy: Path) -> None:
    split = train(copy)
    for row in pq.read_table(index_path(split, 0)).to_pylist():
        data = shard_path(split, 0).read_bytes()[row["offset"] : row["offset"] + row["length"]]
        assert row["bytes_xxh3"] == xxhash.xxh3_128(data).hexdigest()
