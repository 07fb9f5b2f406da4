from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from data.make_hostile import HOSTILE, deep, deep_ramp, deep_rgb, encode, packed_tiff, write_hostile
from PIL import Image

from shards.dataset.dataset import open_dataset
from shards.dataset.manifest import MANIFEST_NAME
from shards.dataset.read import SampleReader
from shards.errors import ShardError, UsageError
from shards.files.temporary import TEMPORARY
from shards.packing.claim import MARKER, QUARANTINE
from shards.packing.encode import StoreOptions
from shards.packing.options import PackOptions
from shards.packing.pack import Run, pack
from shards.pictures.decode import DecodeOptions, decode
from shards.sources.find import find_sources
from shards.sources.model import SourceList
from shards.splits.splits import SplitOptions, split_stratified
from shards.workers.pools import open_pool

ROOT = Path(__file__).parent.parent
SMALL = PackOptions(shard_bytes=1500)


def make_folder(root: Path, per_class: int = 20, classes: str = "ab", size: int = 8) -> Path:
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:03d}.png")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 20 small PNGs; read only."""
    return make_folder(tmp_path_factory.mktemp("pack") / "pictures")


@pytest.fixture(scope="module")
def listed(folder: Path) -> SourceList:
    return find_sources(folder)


@pytest.fixture(scope="module")
def packed(listed: SourceList, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`folder`, packed with SMALL by one that was never stopped; read only."""
    out = tmp_path_factory.mktemp("packed") / "dataset"
    pack(listed, out, SMALL)
    return out


def digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file below `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def packed_sources(out: Path) -> list[str]:
    """Return the source name of every sample, in the order of the shards."""
    names: list[str] = []
    for path in sorted(out.rglob("*.index.parquet")):
        names += pq.read_table(path)["source"].to_pylist()
    return names


def stop_after_shards(count: int) -> Callable[..., None]:
    """Return a progress callback that presses Ctrl-C when `count` shards are written."""
    written = 0

    def press(stage: str, *_: int) -> None:
        nonlocal written
        written += stage == "write"
        if written == count:
            raise KeyboardInterrupt

    return press


def stop(listed: SourceList, out: Path, options: PackOptions = SMALL, shards: int = 3) -> None:
    with pytest.raises(KeyboardInterrupt):
        pack(listed, out, options, Run(progress=stop_after_shards(shards)))


# what is in the shards


def test_every_source_is_in_the_shards_exactly_once(listed: SourceList, packed: Path) -> None:
    assert sorted(packed_sources(packed)) == [source.name for source in listed.sources]


def test_several_shards_were_cut(packed: Path) -> None:
    assert len(list(packed.glob("train/*.tar"))) > 5


def test_shard_holds_no_more_picture_bytes_than_asked_for(packed: Path) -> None:
    sizes = [sum(pq.read_table(path)["length"].to_pylist()) for path in packed.rglob("*.index.parquet")]
    assert max(sizes) <= SMALL.shard_bytes


def test_picture_larger_than_a_shard_has_one_of_its_own(listed: SourceList, tmp_path: Path) -> None:
    pack(listed, tmp_path / "out", PackOptions(shard_bytes=1))
    assert len(list((tmp_path / "out").rglob("*.tar"))) == len(listed.sources)


def test_stored_bytes_are_the_files_bytes(folder: Path, packed: Path) -> None:
    split = open_dataset(packed).split("train")
    with SampleReader(split) as reader:
        for shard, count in enumerate(split.counts.tolist()):
            for sample in reader.read(shard, np.arange(count)):
                assert sample.data == (folder / sample.source).read_bytes()


def test_sample_ids_run_through_all_shards_of_all_splits(packed: Path) -> None:
    dataset = open_dataset(packed)
    ids: list[int] = []
    for name in dataset.manifest.splits:
        split = dataset.split(name)
        for shard in range(len(split.counts)):
            ids += pq.read_table(Path(split.location) / split.wanted_index(shard).name)["sample_id"].to_pylist()
    assert ids == list(range(40))


def test_shares_are_taken_of_every_class(packed: Path) -> None:
    splits = open_dataset(packed).manifest.splits
    assert {name: split.class_counts for name, split in splits.items()} == {
        "train": [16, 16],
        "val": [2, 2],
        "test": [2, 2],
    }


def test_splits_of_the_folder_are_kept(dataset_path: Path) -> None:
    for name in ("train", "val", "test"):
        split = open_dataset(dataset_path).split(name)
        for shard in range(len(split.counts)):
            assert {
                s.split("/")[0]
                for s in pq.read_table(Path(split.location) / split.wanted_index(shard).name)["source"].to_pylist()
            } == {name}


def test_shard_table_counts_classes_as_the_index_does(dataset_path: Path) -> None:
    split = open_dataset(dataset_path).split("train")
    for shard, expected in enumerate(split.class_counts.tolist()):
        labels = pq.read_table(Path(split.location) / split.wanted_index(shard).name)["label"].to_numpy()
        assert np.bincount(labels, minlength=3).tolist() == expected


def test_no_shard_holds_one_class_only(dataset_path: Path) -> None:
    assert ((open_dataset(dataset_path).split("train").class_counts > 0).sum(axis=1) > 1).all()


def test_weights_are_kept(tmp_path: Path) -> None:
    make_folder(tmp_path / "in")
    (tmp_path / "in/samples.csv").write_text("path,weight\na/003.png,0.25\n")
    pack(find_sources(tmp_path / "in"), tmp_path / "out", SMALL)
    rows = [row for path in (tmp_path / "out").rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert {row["source"]: row["weight"] for row in rows if row.get("weight", 1) != 1} == {"a/003.png": 0.25}


# the same input gives the same bytes


def test_packing_twice_gives_identical_folders(listed: SourceList, packed: Path, tmp_path: Path) -> None:
    pack(listed, tmp_path / "again", SMALL)
    assert digests(tmp_path / "again") == digests(packed)


@pytest.mark.parametrize("workers", [2, 5])
def test_number_of_workers_does_not_change_a_byte(
    listed: SourceList, packed: Path, tmp_path: Path, workers: int
) -> None:
    with open_pool(workers) as pool:
        pack(listed, tmp_path / "again", SMALL, Run(pool))
    assert digests(tmp_path / "again") == digests(packed)


def test_place_and_dates_of_the_pictures_do_not_change_a_byte(folder: Path, packed: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    pack(find_sources(tmp_path / "elsewhere"), tmp_path / "again", SMALL)
    assert digests(tmp_path / "again") == digests(packed)


def test_samples_are_permuted_by_the_seed(listed: SourceList, packed: Path, tmp_path: Path) -> None:
    pack(listed, tmp_path / "other", SMALL.model_copy(update={"split": SplitOptions(seed=1)}))
    first, second = packed_sources(packed), packed_sources(tmp_path / "other")
    assert sorted(first) == sorted(second)
    assert first != second
    assert first != sorted(first)


# others can read it


def test_webdataset_reads_the_shards(folder: Path, packed: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        import webdataset

        urls = [str(path) for path in sorted(packed.rglob("*.tar"))]
        samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    read = {json.loads(sample["json"])["source"]: (sample["png"], int(sample["cls"])) for sample in samples}
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*.png")]
    assert read == {name: ((folder / name).read_bytes(), "ab".index(name[0])) for name in names}


def test_tar_lists_the_shards(packed: Path) -> None:
    listing = subprocess.run(["tar", "tf", packed / "train/000000.tar"], capture_output=True, text=True, check=True)
    assert listing.stdout.splitlines()[:3] == ["000000000.png", "000000000.cls", "000000000.json"]
    assert listing.stderr == ""


def test_offsets_of_the_index_are_those_of_the_tar(packed: Path) -> None:
    for path in packed.rglob("*.tar"):
        rows = pq.read_table(path.with_suffix(".index.parquet")).to_pylist()
        with tarfile.open(path) as tar:
            pictures = [member for member in tar.getmembers() if member.name.endswith(".png")]
        assert [(m.offset_data, m.size) for m in pictures] == [(row["offset"], row["length"]) for row in rows]


def test_ending_in_the_shard_tells_what_the_bytes_are(tmp_path: Path) -> None:
    make_folder(tmp_path / "in", per_class=2)
    Image.new("RGB", (4, 4)).save(tmp_path / "in/a/liar.jpg", "PNG")
    Image.new("RGB", (4, 4)).save(tmp_path / "in/a/scan.TIFF", "TIFF")
    pack(find_sources(tmp_path / "in"), tmp_path / "out", PackOptions(split=SplitOptions(shares={})))
    with tarfile.open(tmp_path / "out/train/000000.tar") as tar:
        assert Counter(name.split(".")[1] for name in tar.getnames()) == {"png": 6, "cls": 6, "json": 6}


# unreadable pictures


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Good pictures of two classes and all hostile ones in `a`; the folder and its dataset."""
    root = tmp_path_factory.mktemp("hostile")
    make_folder(root / "in", per_class=4)
    write_hostile(root / "in/a")
    pack(find_sources(root / "in"), root / "out", PackOptions(max_reject_rate=1, split=SplitOptions(shares={})))
    return root / "in", root / "out"


def read_quarantine(out: Path) -> dict[str, str]:
    with open(out / QUARANTINE, newline="", encoding="utf-8") as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


def test_quarantine_holds_the_unreadable_pictures_and_no_others(hostile: tuple[Path, Path]) -> None:
    assert set(read_quarantine(hostile[1])) == {f"a/{item.name}" for item in HOSTILE if not item.size}


def test_quarantine_tells_each_reason(hostile: tuple[Path, Path]) -> None:
    reasons = read_quarantine(hostile[1])
    assert {
        item.name: item.says for item in HOSTILE if not item.size and item.says not in reasons[f"a/{item.name}"]
    } == {}


def test_unreadable_pictures_are_in_no_shard_and_all_others_are(hostile: tuple[Path, Path]) -> None:
    good = {f"a/{item.name}" for item in HOSTILE if item.size} | {f"{c}/{n:03d}.png" for c in "ab" for n in range(4)}
    assert sorted(packed_sources(hostile[1])) == sorted(good)


def test_manifest_counts_the_quarantine(hostile: tuple[Path, Path]) -> None:
    assert open_dataset(hostile[1]).manifest.quarantined == sum(not item.size for item in HOSTILE)


def test_quarantine_is_the_same_byte_for_byte_again(hostile: tuple[Path, Path], tmp_path: Path) -> None:
    pack(find_sources(hostile[0]), tmp_path / "out", PackOptions(max_reject_rate=1, split=SplitOptions(shares={})))
    assert digests(tmp_path / "out") == digests(hostile[1])


def test_quarantine_of_a_clean_folder_is_empty(packed: Path) -> None:
    assert (packed / QUARANTINE).read_text() == "path,reason\n"


def spoil(root: Path, count: int) -> SourceList:
    make_folder(root)
    for number in range(count):
        (root / f"a/{number:03d}.png").write_bytes(b"")
    return find_sources(root)


def test_share_of_unreadable_pictures_at_the_limit_is_put_up_with(tmp_path: Path) -> None:
    manifest = pack(spoil(tmp_path / "in", 4), tmp_path / "out", SMALL.model_copy(update={"max_reject_rate": 0.1}))
    assert manifest.quarantined == 4


def test_share_of_unreadable_pictures_over_the_limit_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ShardError) as caught:
        pack(spoil(tmp_path / "in", 5), tmp_path / "out", SMALL.model_copy(update={"max_reject_rate": 0.1}))
    assert str(caught.value) == (
        "5 of 40 pictures cannot be read, over the limit of 10.0%; the first is a/000.png: "
        "the picture is empty (0 bytes). Repair or remove them, or raise --max-reject-rate"
    )


def test_refused_pictures_leave_the_audits_pages_and_its_journal_only(tmp_path: Path) -> None:
    with pytest.raises(ShardError):
        pack(spoil(tmp_path / "in", 5), tmp_path / "out", SMALL)
    names = {path.relative_to(tmp_path / "out").parts[0] for path in (tmp_path / "out").rglob("*")}
    assert names == {".packing", "audit.html", "audit.parquet"}


def test_pictures_that_were_refused_are_packed_once_they_are_allowed(tmp_path: Path) -> None:
    listed = spoil(tmp_path / "in", 5)
    with pytest.raises(ShardError):
        pack(listed, tmp_path / "out", SMALL)
    assert pack(listed, tmp_path / "out", SMALL.model_copy(update={"max_reject_rate": 1})).quarantined == 5


def test_class_that_lost_all_its_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"class 'a' has no readable picture in train, so it cannot be learnt; repair"):
        pack(spoil(tmp_path / "in", 20), tmp_path / "out", SMALL.model_copy(update={"max_reject_rate": 1}))


def deep_folder(root: Path, peak: int) -> SourceList:
    make_folder(root, per_class=1)
    (root / "a/scan.png").write_bytes(deep(deep_ramp(peak), "PNG"))
    return find_sources(root)


def test_12_bits_in_16_are_refused_with_the_range_to_give(tmp_path: Path) -> None:
    with pytest.raises(
        ShardError,
        match=r"values up to 4095 of 65535, .* for example --bits 12 .the same as --range 0,4095., or --bits 16",
    ):
        pack(deep_folder(tmp_path / "in", 4095), tmp_path / "out", SMALL)


def test_12_bits_in_16_are_packed_once_their_range_is_given(tmp_path: Path) -> None:
    options = PackOptions(store=StoreOptions(decode=DecodeOptions(gray_range=(0, 4095))))
    assert pack(deep_folder(tmp_path / "in", 4095), tmp_path / "out", options).packing.decode.gray_range == (0, 4095)


def ten_bit_folder(root: Path, peak: int) -> SourceList:
    make_folder(root, per_class=1)
    (root / "a/scan.tif").write_bytes(packed_tiff(deep_rgb(1, peak), 10))
    return find_sources(root)


def read_stored(out: Path, part: str, source: str) -> bytes:
    """Return the bytes that the shards hold of a picture."""
    split = open_dataset(out).split(part)
    with SampleReader(split) as reader:
        for shard in range(len(split.counts)):
            names = reader.read_columns(["source"], [shard])["source"].to_pylist()
            if source in names:
                return reader.read_one(shard, names.index(source)).data
    raise AssertionError(source)


@pytest.mark.parametrize(("given", "white"), [((0, 255), 255), ((0, 1023), 64)])
def test_few_bits_of_which_a_part_is_used_are_refused_and_both_remedies_pack_them(
    given: tuple[int, int], white: int, tmp_path: Path
) -> None:
    """The first two numbers of bits that the sentence names; 255 of 1023 is 63.6 of 255."""
    listed = ten_bit_folder(tmp_path / "in", 255)
    with pytest.raises(ShardError, match=r"of 10 bits use values up to 255 of 1023, .* --bits 8 .*, or --bits 10"):
        pack(listed, tmp_path / "out", SMALL)
    options = PackOptions(store=StoreOptions(decode=DecodeOptions(gray_range=given)))
    pack(listed, tmp_path / "out", options)
    table = pq.read_table(tmp_path / "out" / "audit.parquet").to_pylist()
    (row,) = [row for row in table if row["source"] == "a/scan.tif"]
    assert decode(read_stored(tmp_path / "out", row["split"], "a/scan.tif")).max() == white


def test_few_bits_of_which_all_are_used_need_no_range(tmp_path: Path) -> None:
    assert pack(ten_bit_folder(tmp_path / "in", 1023), tmp_path / "out", SMALL).quarantined == 0


@pytest.mark.parametrize("others", [0, 2])
def test_pictures_over_the_pixel_limit_name_their_own_remedy_which_packs_them(others: int, tmp_path: Path) -> None:
    make_folder(tmp_path / "in", per_class=4)
    encode_large = encode(Image.new("RGB", (200, 100), "red"), "PNG")
    (tmp_path / "in/a/large.png").write_bytes(encode_large)
    for number in range(others):
        (tmp_path / f"in/b/bad{number}.png").write_bytes(b"no picture")
    listed = find_sources(tmp_path / "in")
    with pytest.raises(ShardError) as caught:
        pack(listed, tmp_path / "out", limit_pixels(10_000))
    said = str(caught.value)
    assert "raise --max-pixels to read pictures of that size" in said
    assert ("--max-reject-rate" in said) == (others > 0)
    assert ("1 of them are" if others else "All of them are") in said
    loose = limit_pixels(20_000).model_copy(update={"max_reject_rate": 0.5})
    assert pack(listed, tmp_path / "out", loose).quarantined == others


def limit_pixels(count: int) -> PackOptions:
    return PackOptions(store=StoreOptions(decode=DecodeOptions(max_pixels=count)))


def test_wholly_transparent_pictures_are_counted_and_named(tmp_path: Path) -> None:
    make_folder(tmp_path / "in", per_class=2)
    for number in range(2):
        (tmp_path / f"in/a/clear{number}.png").write_bytes(encode(Image.new("RGBA", (8 + number, 9)), "PNG"))
    notes: list[str] = []
    pack(find_sources(tmp_path / "in"), tmp_path / "out", SMALL, Run(report=notes.append))
    assert any("2 pictures are fully transparent (a/clear0.png, a/clear1.png)" in note for note in notes)


def test_16_bits_in_16_need_no_range(tmp_path: Path) -> None:
    assert pack(deep_folder(tmp_path / "in", 65535), tmp_path / "out", SMALL).quarantined == 0


# stopping and going on


def test_dataset_json_is_absent_until_the_end(listed: SourceList, tmp_path: Path) -> None:
    seen: list[bool] = []
    run = Run(progress=lambda *_: seen.append((tmp_path / "out" / MANIFEST_NAME).exists()))
    pack(listed, tmp_path / "out", SMALL, run)
    assert seen.count(True) == 0
    assert (tmp_path / "out" / MANIFEST_NAME).exists()


def test_pack_that_fails_at_its_table_publishes_nothing_and_goes_on(
    listed: SourceList, packed: Path, tmp_path: Path
) -> None:
    (tmp_path / "out/shards.parquet").mkdir(parents=True)  # what cannot be replaced stands for what cannot be written
    with pytest.raises(IsADirectoryError):
        pack(listed, tmp_path / "out", SMALL)
    assert not (tmp_path / "out" / MANIFEST_NAME).exists()
    (tmp_path / "out/shards.parquet").rmdir()
    pack(listed, tmp_path / "out", SMALL)
    assert digests(tmp_path / "out") == digests(packed)


@pytest.mark.parametrize("shards", [1, 2, 5, 8])
def test_interrupted_pack_goes_on_to_the_same_bytes(
    listed: SourceList, packed: Path, tmp_path: Path, shards: int
) -> None:
    stop(listed, tmp_path / "out", shards=shards)
    assert not (tmp_path / "out" / MANIFEST_NAME).exists()
    pack(listed, tmp_path / "out", SMALL)
    assert digests(tmp_path / "out") == digests(packed)


def test_finished_shards_are_not_written_again(listed: SourceList, tmp_path: Path) -> None:
    stop(listed, tmp_path / "out", shards=4)
    before = {path: path.stat().st_ino for path in (tmp_path / "out").rglob("*.tar")}
    pack(listed, tmp_path / "out", SMALL)
    assert len(before) == 4
    assert before == {path: path.stat().st_ino for path in before}


def count_shards(out: Path) -> int:
    """Begun ones included; folders may come and go meanwhile, which a glob does not bear."""
    return sum(".tar" in name for _, _, names in os.walk(out) for name in names)


@pytest.mark.parametrize("attempt", range(2))
def test_killed_pack_goes_on_to_the_same_bytes(folder: Path, packed: Path, tmp_path: Path, attempt: int) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "shards", "pack", str(folder), str(out), "--shard-bytes", "1500"]
    target = random.SystemRandom().randrange(1, 11)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and count_shards(out) < target:
            time.sleep(0.0005)
        process.kill()
    pack(find_sources(folder), out, SMALL)
    (out / "origin.json").unlink(missing_ok=True)  # of the command, where it had published before it was killed
    assert digests(out) == digests(packed)


def test_pack_killed_in_the_middle_of_a_file_leaves_nothing_behind(
    listed: SourceList, packed: Path, tmp_path: Path
) -> None:
    stop(listed, tmp_path / "out")
    (tmp_path / f"out/train/000003.tar{TEMPORARY}-4711").write_bytes(b"half a shard")
    (tmp_path / f"out/shards.parquet{TEMPORARY}-4711").write_bytes(b"half a table")
    pack(listed, tmp_path / "out", SMALL)
    assert digests(tmp_path / "out") == digests(packed)


def test_pack_killed_before_its_first_file_had_its_name_goes_on(
    listed: SourceList, packed: Path, tmp_path: Path
) -> None:
    (tmp_path / "out" / MARKER).parent.mkdir(parents=True)
    (tmp_path / f"out/{MARKER}{TEMPORARY}-4711").write_bytes(b"{")
    pack(listed, tmp_path / "out", SMALL)
    assert digests(tmp_path / "out") == digests(packed)


def test_pack_killed_just_after_it_published_is_tidied(listed: SourceList, packed: Path, tmp_path: Path) -> None:
    shutil.copytree(packed, tmp_path / "out")
    (tmp_path / "out" / MARKER).parent.mkdir()
    (tmp_path / "out" / MARKER).write_text("{}")
    pack(listed, tmp_path / "out", SMALL)
    assert digests(tmp_path / "out") == digests(packed)


@pytest.mark.parametrize("name", ["train/000001.tar", "train/000001.index.parquet"])
@pytest.mark.parametrize("left", [0, 100])
def test_shard_cut_by_a_power_failure_is_written_again(
    listed: SourceList, packed: Path, tmp_path: Path, name: str, left: int
) -> None:
    stop(listed, tmp_path / "out")
    os.truncate(tmp_path / "out" / name, left)
    pack(listed, tmp_path / "out", SMALL)
    assert digests(tmp_path / "out") == digests(packed)


def test_finished_dataset_is_left_alone_by_the_same_options(listed: SourceList, packed: Path, tmp_path: Path) -> None:
    shutil.copytree(packed, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    manifest = pack(listed, tmp_path / "out", SMALL)
    assert manifest == open_dataset(packed).manifest
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}


@pytest.mark.parametrize(
    "change",
    [
        {"split": SplitOptions(seed=1)},
        {"shard_bytes": 3000},
        {"split": SplitOptions(shares={})},
        {"store": StoreOptions(decode=DecodeOptions(background=(0, 0, 0)))},
    ],
)
def test_finished_dataset_is_refused_to_other_options(listed: SourceList, packed: Path, change: dict[str, Any]) -> None:
    with pytest.raises(
        UsageError, match="already holds a dataset of other pictures or options; add new pictures to it with --update"
    ):
        pack(listed, packed, SMALL.model_copy(update=change))


def test_finished_dataset_is_refused_to_other_pictures(packed: Path, tmp_path: Path) -> None:
    make_folder(tmp_path / "in", per_class=3)
    with pytest.raises(UsageError, match="already holds a dataset of other pictures or options"):
        pack(find_sources(tmp_path / "in"), packed, SMALL)


def test_unfinished_pack_of_another_plan_is_replaced(listed: SourceList, packed: Path, tmp_path: Path) -> None:
    stop(listed, tmp_path / "out", SMALL.model_copy(update={"split": SplitOptions(seed=1)}), shards=8)
    pack(listed, tmp_path / "out", SMALL)
    assert digests(tmp_path / "out") == digests(packed)


def test_foreign_folder_is_refused_and_left_as_it_was(listed: SourceList, tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("precious")
    with pytest.raises(
        UsageError, match=r"is not empty \(thesis\.docx\) and not an unfinished dataset; name another folder"
    ):
        pack(listed, tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


def test_foreign_folder_is_refused_before_any_picture_is_decoded(listed: SourceList, tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").touch()
    calls: list[str] = []
    with pytest.raises(UsageError):
        pack(listed, tmp_path, SMALL, Run(progress=lambda stage, *_: calls.append(stage)))
    assert calls == []


def test_file_in_place_of_the_dataset_is_refused(listed: SourceList, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(UsageError, match="out is a file; name a folder for the dataset"):
        pack(listed, tmp_path / "out", SMALL)


def test_picture_that_changes_during_packing_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path / "in")
    victim = tmp_path / "in/a/007.png"

    def change(stage: str, done: int, total: int, _: int) -> None:
        if stage == "audit" and done == total:
            Image.new("RGB", (8, 8)).save(victim)

    with pytest.raises(ShardError, match=r"a/007\.png changed while the pictures were packed; nothing was published"):
        pack(find_sources(tmp_path / "in"), tmp_path / "out", SMALL, Run(progress=change))
    assert not (tmp_path / "out" / MANIFEST_NAME).exists()


# random splits


@pytest.mark.parametrize("members", range(1, 12))
def test_class_keeps_a_sample_in_train_and_gives_one_to_each_split_while_it_can(members: int) -> None:
    counts = Counter(split_stratified(["a"] * members, {"val": 0.1, "test": 0.1}, seed=0))
    assert (counts["train"] >= 1, counts["val"], counts["test"]) == (True, int(members > 1), int(members > 2))


def test_splits_of_a_class_do_not_depend_on_how_many_others_follow_it() -> None:
    alone = split_stratified(["a"] * 30, {"val": 0.3}, seed=5)
    assert split_stratified(["a"] * 30 + ["b"] * 10, {"val": 0.3}, seed=5)[:30] == alone


def test_splits_differ_between_seeds() -> None:
    assert split_stratified(["a"] * 30, {"val": 0.3}, seed=0) != split_stratified(["a"] * 30, {"val": 0.3}, seed=1)
