from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from shards.dataset.manifest import read_manifest
from shards.packing.claim import MARKER, claim_target, release_target
from shards.packing.options import PackOptions
from shards.packing.pack import Run, pack
from shards.sources.find import find_sources
from shards.splits.splits import SplitOptions
from shards.storage.storage import FolderStorage

SMALL = PackOptions(shard_bytes=40_000)


def stop(pictures: Path, out: Path, options: PackOptions, shards: int) -> None:
    written: list[str] = []

    def press(stage: str, *_: int) -> None:
        written.extend([stage] * (stage == "write"))
        if len(written) == shards:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(find_sources(pictures), out, options, Run(progress=press))


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_shards_of_an_unfinished_plan_with_more_shards_are_not_left_behind(
    pictures: Path, dataset_path: Path, tmp_path: Path
) -> None:
    stop(pictures, tmp_path / "out", PackOptions(shard_bytes=5_000), shards=40)
    pack(find_sources(pictures), tmp_path / "out", SMALL)
    assert files(tmp_path / "out") == files(dataset_path)


def test_shard_of_another_plan_under_the_right_name_is_written_again(
    pictures: Path, dataset_path: Path, tmp_path: Path
) -> None:
    pack(find_sources(pictures), tmp_path / "other", SMALL.model_copy(update={"split": SplitOptions(seed=1)}))
    stop(pictures, tmp_path / "out", SMALL, shards=2)
    for name in ("000000.tar", "000000.index.parquet"):
        shutil.copy(tmp_path / "other/train" / name, tmp_path / "out/train" / name)
    pack(find_sources(pictures), tmp_path / "out", SMALL)
    assert files(tmp_path / "out") == files(dataset_path)


def test_claim_killed_before_it_marked_its_plan_still_knows_the_old_one(tmp_path: Path) -> None:
    class Killed(FolderStorage):
        def write(self, *_: object) -> None:
            raise KeyboardInterrupt

    storage = FolderStorage(tmp_path)
    claim_target(storage, "old", set())
    storage.write("train/000007.tar", b"old")
    storage.write("train/000008.tar", b"old")
    with pytest.raises(KeyboardInterrupt):
        claim_target(Killed(tmp_path), "new", set())
    assert set(claim_target(storage, "new", set())) <= {MARKER}


def test_claim_keeps_published_shards_and_those_of_its_own_plan(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    for name in ("dataset.json", "train/000000.tar", "train/000000.index.parquet", "train/000001.tar"):
        storage.write(name, b"x")
    claim_target(storage, "plan", {"train/000000"})
    assert set(storage.sizes()) == {"dataset.json", "train/000000.tar", "train/000000.index.parquet", MARKER}
    storage.write("train/000001.tar", b"x")
    claim_target(storage, "plan", {"train/000000"})
    assert "train/000001.tar" in storage.sizes()


def test_release_leaves_the_dataset_only(dataset_path: Path, tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    storage.write("dataset.json", b"{}")
    claim_target(storage, "plan", set())
    storage.write(".packing/audit/1.parquet", b"x")
    release_target(storage, read_manifest(dataset_path), set())
    assert [path.name for path in tmp_path.rglob("*")] == ["dataset.json"]
