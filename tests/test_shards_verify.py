from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from shards.errors import ShardError
from shards.fingerprint import fingerprint_file
from shards.index import INDEX_SCHEMA, SHARD_SCHEMA, write_table
from shards.manifest import TABLE_NAME, read_manifest
from shards.packing.pack import PackOptions, pack
from shards.sources.folder import scan_folder
from shards.verify import verify_dataset


@pytest.fixture
def copy(dataset_path: Path, tmp_path: Path) -> Path:
    """A dataset that a test may damage."""
    shutil.copytree(dataset_path, tmp_path / "copy")
    return tmp_path / "copy"


def flip_bit(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def refusal(folder: Path) -> str:
    with pytest.raises(ShardError) as caught:
        verify_dataset(folder)
    return str(caught.value)


def test_untouched_dataset_is_as_packed(dataset_path: Path) -> None:
    assert verify_dataset(dataset_path) == 120


@pytest.mark.parametrize("place", [0, 600, -1])
@pytest.mark.parametrize("name", ["train/000001.tar", "val/000000.tar", "test/000000.index.parquet"])
def test_one_flipped_bit_anywhere_is_found_and_its_file_named(copy: Path, name: str, place: int) -> None:
    path = copy / name
    flip_bit(path, place)
    assert refusal(copy) == (
        f"{path}: sha256 differs from the shard table ({path.stat().st_size:,} bytes); "
        "the file changed after packing. Pack again, or restore it from a backup"
    )


def test_flipped_bit_in_the_shard_table_is_found(copy: Path) -> None:
    flip_bit(copy / TABLE_NAME, 300)
    assert "shards.parquet" in refusal(copy)


def test_shard_table_of_another_dataset_is_found(copy: Path, pictures: Path, tmp_path: Path) -> None:
    pack(scan_folder(pictures), tmp_path / "other", PackOptions(shard_bytes=80_000))
    shutil.copy(tmp_path / "other" / TABLE_NAME, copy / TABLE_NAME)
    assert refusal(copy) == (
        f"{copy}/shards.parquet: sha256 differs from dataset.json; the table changed after packing. Pack again"
    )


@pytest.mark.parametrize("name", ["train/000001.tar", "train/000001.index.parquet", "shards.parquet"])
def test_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert refusal(copy) == f"{copy}/{name} is missing; restore it from a backup or pack again"


def test_swapped_shards_are_found(copy: Path) -> None:
    first, second = copy / "train/000000.tar", copy / "train/000001.tar"
    first.rename(copy / "third")
    second.rename(first)
    (copy / "third").rename(second)
    assert refusal(copy).startswith(f"{first}: sha256 differs from the shard table")


def test_pixels_that_decode_to_others_than_were_packed_are_found(copy: Path) -> None:
    """As if another Pillow decoded them: every file is whole, but the recorded hash of the pixels is another."""
    index_path = copy / "train/000000.index.parquet"
    rows = pq.read_table(index_path).to_pylist()
    rows[0]["pixels_xxh3"] = "0" * 32
    write_table(index_path, rows, INDEX_SCHEMA)
    table = pq.read_table(copy / TABLE_NAME).to_pylist()
    table[0]["index_sha256"] = fingerprint_file(index_path)
    write_table(copy / TABLE_NAME, table, SHARD_SCHEMA)
    read_manifest(copy).model_copy(update={"table_sha256": fingerprint_file(copy / TABLE_NAME)}).write(copy)
    assert refusal(copy) == f"{copy}/train/000000.tar key 000000000: the pixels differ from those that were packed"
