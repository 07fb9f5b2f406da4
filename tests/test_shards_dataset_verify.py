from __future__ import annotations

import shutil
from pathlib import Path

import PIL
import pyarrow.parquet as pq
import pytest

from shards.dataset.dataset import open_dataset
from shards.dataset.index import INDEX_SCHEMA, SHARD_SCHEMA, build_table, encode_table
from shards.dataset.manifest import MANIFEST_NAME, TABLE_NAME, read_manifest
from shards.dataset.verify import Verified, verify_dataset
from shards.errors import ShardError, UsageError
from shards.files.fingerprint import fingerprint_file
from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.sources.find import find_sources


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
    dataset = open_dataset(dataset_path)
    assert verify_dataset(dataset_path) == Verified(len(dataset.table), 120)


def test_sample_is_drawn_from_all_splits_and_every_shard_is_hashed(dataset_path: Path) -> None:
    assert verify_dataset(dataset_path, sample=7) == Verified(len(open_dataset(dataset_path).table), 7)


def test_sample_larger_than_the_dataset_is_all_of_it(dataset_path: Path) -> None:
    assert verify_dataset(dataset_path, sample=1000).pictures == 120


def test_sample_of_nothing_is_refused(dataset_path: Path) -> None:
    with pytest.raises(UsageError, match="--sample is a number of pictures and must be at least 1, got 0"):
        verify_dataset(dataset_path, sample=0)


@pytest.mark.parametrize("sample", [1, 119])
def test_sample_finds_what_it_decodes_only(copy: Path, sample: int) -> None:
    spoil_hashes(copy)
    with pytest.raises(ShardError, match="the pixels differ"):
        verify_dataset(copy, sample=sample)


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
    pack(find_sources(pictures), tmp_path / "other", PackOptions(shard_bytes=80_000))
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


def spoil_hashes(copy: Path, rows: slice = slice(None)) -> None:
    """Change the recorded hashes of pixels, and every digest above them, as if another Pillow had decoded them."""
    table = pq.read_table(copy / TABLE_NAME).to_pylist()
    for shard in table[rows]:
        index_path = (copy / shard["name"]).with_suffix(".index.parquet")
        index = [row | {"pixels_xxh3": "0" * 32} for row in pq.read_table(index_path).to_pylist()]
        index_path.write_bytes(encode_table(build_table(index, INDEX_SCHEMA)))
        shard["index_sha256"] = fingerprint_file(index_path)
    (copy / TABLE_NAME).write_bytes(encode_table(build_table(table, SHARD_SCHEMA)))
    manifest = read_manifest(copy).model_copy(update={"table_sha256": fingerprint_file(copy / TABLE_NAME)})
    (copy / MANIFEST_NAME).write_bytes(manifest.encode())


def test_pixels_that_decode_to_others_than_were_packed_are_found(copy: Path) -> None:
    spoil_hashes(copy, slice(0, 1))
    assert refusal(copy) == (
        f"{copy}/train/000000.tar key 000000000 at offset 512: the pixels differ from those that were packed "
        f"although the bytes are the same, so another decoder was used (here Pillow {PIL.__version__}); install the "
        "one that packed it, or pack again"
    )
