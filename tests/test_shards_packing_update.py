"""`--update`: new pictures in new shards, beside old ones that nobody touches."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.scenes import draw
from PIL import Image

from shards.__main__ import main
from shards.dataset.dataset import open_dataset
from shards.dataset.manifest import MANIFEST_NAME, Manifest
from shards.dataset.split import Split
from shards.dataset.verify import Verified, verify_dataset
from shards.errors import ShardError, UsageError
from shards.packing.claim import QUARANTINE
from shards.packing.encode import StoreOptions
from shards.packing.foreign import index_foreign
from shards.packing.options import PackOptions
from shards.packing.pack import Run, pack
from shards.pictures.decode import DecodeOptions
from shards.sources.find import find_sources
from shards.sources.model import SourceList
from shards.splits.splits import SplitOptions

SMALL = PackOptions(shard_bytes=30_000, split=SplitOptions(shares={}))
LOOSE = SMALL.model_copy(update={"max_reject_rate": 1.0})


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def add(root: Path, seeds: range, names: str = "{label}/{seed:03d}.png") -> Path:
    """Write a picture for each seed, ants and bees in turn."""
    for seed in seeds:
        save(draw(seed), root / names.format(label=("ant", "bee")[seed % 2], seed=seed))
    return root


def add_splits(root: Path, seeds: range) -> Path:
    """Write pictures into train and test, two in train for one in test."""
    for seed in seeds:
        split = "test" if seed % 6 >= 4 else "train"
        save(draw(seed), root / split / ("ant", "bee")[seed % 2] / f"{seed:03d}.png")
    return root


def update(root: Path, out: Path, options: PackOptions = SMALL, run: Run = Run()) -> Manifest:
    return pack(find_sources(root), out, options, run, update=True)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of every file."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def read_index(split: Split, shard: int) -> pa.Table:
    return pq.read_table(Path(split.location) / split.wanted_index(shard).name)


def packed_splits(out: Path) -> dict[str, str]:
    """Return the split of each picture by its name, as the dataset's own table and indexes tell it."""
    dataset = open_dataset(out)
    found: dict[str, str] = {}
    for name in dataset.manifest.splits:
        split = dataset.split(name)
        for shard in range(len(split.counts)):
            found |= dict.fromkeys(read_index(split, shard)["source"].to_pylist(), name)
    return found


def quarantine(out: Path) -> list[str]:
    with open(out / QUARANTINE, newline="", encoding="utf-8") as file:
        return [row["path"] for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of 24 pictures and its dataset of several shards; read only."""
    root = tmp_path_factory.mktemp("update")
    add(root / "in", range(24))
    pack(find_sources(root / "in"), root / "out", SMALL)
    return root / "in", root / "out"


@pytest.fixture
def grown(made: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """The same with 12 pictures more in the folder."""
    for source, name in zip(made, ("in", "out"), strict=True):
        shutil.copytree(source, tmp_path / name)
    add(tmp_path / "in", range(24, 36))
    return tmp_path / "in", tmp_path / "out"


# what is added, and what stays


def test_new_pictures_are_added_and_only_they(grown: tuple[Path, Path]) -> None:
    root, out = grown
    old = stamps(out / "train")
    manifest = update(root, out)
    assert set(packed_splits(out)) == {source.name for source in find_sources(root).sources}
    assert manifest == open_dataset(out).manifest
    assert (manifest.updates, manifest.splits["train"].samples, manifest.splits["train"].class_counts) == (
        1, 36, [18, 18],
    )  # fmt: skip
    now = stamps(out / "train")
    assert {name: now[name] for name in old} == old
    assert len(now) > len(old)
    assert verify_dataset(out) == Verified(manifest.splits["train"].shards, 36)


def test_ids_and_numbers_of_shards_run_on(grown: tuple[Path, Path]) -> None:
    root, out = grown
    old = open_dataset(out).table.num_rows
    update(root, out)
    split = open_dataset(out).split("train")
    assert split.shard_names == [f"train/{number:06d}.tar" for number in range(len(split.counts))]
    assert split.first_ids[old] == 24
    indexes = [read_index(split, shard) for shard in range(len(split.counts))]
    assert [sample_id for index in indexes for sample_id in index["sample_id"].to_pylist()] == list(range(36))


def test_dataset_that_was_opened_before_can_be_read_after(grown: tuple[Path, Path]) -> None:
    root, out = grown
    before = open_dataset(out).split("train")
    update(root, out)
    assert sum(read_index(before, shard).num_rows for shard in range(len(before.counts))) == 24


def test_update_by_a_folder_of_new_pictures_alone_says_that_the_old_ones_stay(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(made[1], tmp_path / "out")
    said: list[str] = []
    update(add(tmp_path / "new", range(24, 30)), tmp_path / "out", run=Run(report=said.append))
    assert len(packed_splits(tmp_path / "out")) == 30
    assert "24 pictures of the dataset are no longer in the source; they stay in it" in said


def test_second_update_goes_on_from_the_first(grown: tuple[Path, Path]) -> None:
    root, out = grown
    update(root, out)
    add(root, range(36, 42))
    assert update(root, out).updates == 2
    assert len(packed_splits(out)) == 42
    assert [path.name for path in out.glob("shards*.parquet")] == ["shards.2.parquet"]
    assert verify_dataset(out).pictures == 42


def test_update_without_an_audit_adds_to_a_dataset_without_one(tmp_path: Path) -> None:
    blind = SMALL.model_copy(update={"audit": "none"})
    pack(find_sources(add(tmp_path / "in", range(12))), tmp_path / "out", blind)
    add(tmp_path / "in", range(12, 18))
    update(tmp_path / "in", tmp_path / "out", blind)
    assert len(packed_splits(tmp_path / "out")) == 18
    assert verify_dataset(tmp_path / "out").pictures == 18


def test_new_pictures_are_dealt_out_by_shares_of_their_own(tmp_path: Path) -> None:
    shares = SMALL.model_copy(update={"split": SplitOptions(shares={"val": 0.5})})
    pack(find_sources(add(tmp_path / "in", range(16))), tmp_path / "out", shares)
    before = packed_splits(tmp_path / "out")
    update(add(tmp_path / "in", range(16, 32)), tmp_path / "out", shares)
    after = packed_splits(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    assert sorted(split for name, split in after.items() if name not in before) == ["train"] * 8 + ["val"] * 8


# nothing new


def test_nothing_new_writes_nothing(made: tuple[Path, Path]) -> None:
    before = stamps(made[1])
    said: list[str] = []
    manifest = update(*made, run=Run(report=said.append))
    assert manifest == open_dataset(made[1]).manifest
    assert stamps(made[1]) == before
    assert said == ["nothing to add: the dataset holds every picture of the source that can be packed"]


def test_picture_in_quarantine_alone_makes_no_new_state_of_the_dataset(tmp_path: Path) -> None:
    add(tmp_path / "in", range(12))
    (tmp_path / "in/ant/bad.png").write_bytes(b"")
    manifest = pack(find_sources(tmp_path / "in"), tmp_path / "out", LOOSE)
    assert update(tmp_path / "in", tmp_path / "out", LOOSE) == manifest
    assert open_dataset(tmp_path / "out").manifest == manifest
    assert quarantine(tmp_path / "out") == ["ant/bad.png"]
    assert not (tmp_path / "out/.packing").exists()


def test_picture_repaired_after_quarantine_is_added(tmp_path: Path) -> None:
    add(tmp_path / "in", range(12))
    (tmp_path / "in/ant/bad.png").write_bytes(b"")
    pack(find_sources(tmp_path / "in"), tmp_path / "out", LOOSE)
    save(draw(77), tmp_path / "in/ant/bad.png")
    manifest = update(tmp_path / "in", tmp_path / "out", LOOSE)
    assert packed_splits(tmp_path / "out")["ant/bad.png"] == "train"
    assert (manifest.quarantined, quarantine(tmp_path / "out")) == (0, [])


def test_update_of_nothing_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no finished dataset to update; pack without --update first"):
        update(add(tmp_path / "in", range(4)), tmp_path / "out")


# leaks between old and new


@pytest.fixture
def split_dataset(tmp_path: Path) -> tuple[Path, Path]:
    """Given splits of 18 pictures, packed."""
    pack(find_sources(add_splits(tmp_path / "in", range(18))), tmp_path / "out", SMALL)
    return tmp_path / "in", tmp_path / "out"


@pytest.mark.parametrize("kind", ["exact", "near"])
@pytest.mark.parametrize("old_files", ["there", "gone"])
def test_copy_of_an_old_picture_of_another_split_is_a_leak(
    split_dataset: tuple[Path, Path], tmp_path: Path, kind: str, old_files: str
) -> None:
    root, out = split_dataset
    before = digests(out)
    if old_files == "gone":
        shutil.rmtree(root)
        add_splits(root, range(18, 24))
    copy = draw(0)
    if kind == "near":
        copy = copy.resize((48, 48), Image.Resampling.BICUBIC)
    save(copy, root / f"test/ant/copy.{'png' if kind == 'exact' else 'jpg'}")
    with pytest.raises(ShardError, match=r"train/ant/000\.png \[train\] = test/ant/copy\.(png|jpg) \[test\]"):
        update(root, out)
    assert verify_dataset(out).pictures == 18
    after = digests(out)
    assert {name: after[name] for name in before if not name.startswith("audit.")} == {
        name: digest for name, digest in before.items() if not name.startswith("audit.")
    }


def test_refused_update_does_not_forget_the_old_pictures(split_dataset: tuple[Path, Path]) -> None:
    root, out = split_dataset
    save(draw(0), root / "test/ant/copy.png")
    for _ in range(2):  # the first refusal has written a new audit.parquet
        with pytest.raises(ShardError, match=r"train/ant/000\.png \[train\] = test/ant/copy\.png \[test\]"):
            update(root, out)
    (root / "test/ant/copy.png").unlink()
    add_splits(root, range(18, 24))
    update(root, out)
    assert len(packed_splits(out)) == 24


def test_allowed_leak_is_added_and_counted(split_dataset: tuple[Path, Path]) -> None:
    root, out = split_dataset
    save(draw(0), root / "test/ant/copy.png")
    assert update(root, out, SMALL.model_copy(update={"allow_leaks": True})).audited.leaks == 1
    assert packed_splits(out)["test/ant/copy.png"] == "test"


@pytest.mark.parametrize("place", ["test/ant", "test/bee", "train/bee", "train/ant"])
def test_dropping_duplicates_never_drops_an_old_picture(split_dataset: tuple[Path, Path], place: str) -> None:
    root, out = split_dataset
    old = packed_splits(out)
    save(draw(0), root / place / "copy.png")
    add_splits(root, range(18, 20))
    manifest = update(root, out, SMALL.model_copy(update={"drop_duplicates": True}))
    new = packed_splits(out)
    assert set(new) == {*old, "train/ant/018.png", "train/bee/019.png"}
    assert quarantine(out) == [f"{place}/copy.png"]
    assert manifest.audited.dropped == 1


def test_copy_without_a_split_follows_the_old_picture(tmp_path: Path) -> None:
    options = SMALL.model_copy(update={"split": SplitOptions(shares={"test": 0.5})})
    pack(find_sources(add(tmp_path / "in", range(12))), tmp_path / "out", options)
    for seed in range(12):
        save(draw(seed), tmp_path / f"in/{('ant', 'bee')[seed % 2]}/copy{seed:03d}.png")
    manifest = update(tmp_path / "in", tmp_path / "out", options)
    splits = packed_splits(tmp_path / "out")
    assert set(splits.values()) == {"train", "test"}
    assert {name: splits[name.replace("copy", "")] for name in splits} == splits
    assert (len(splits), manifest.audited.leaks, manifest.audited.duplicates) == (24, 0, 12)


def test_group_of_an_old_picture_decides_the_split(tmp_path: Path) -> None:
    options = SMALL.model_copy(update={"split": SplitOptions(shares={"test": 0.5})})
    for person in range(8):
        save(draw(person), tmp_path / f"in/{('ant', 'bee')[person % 2]}/p{person}_0.png")
    pack(find_sources(tmp_path / "in", group_regex=r"p\d+"), tmp_path / "out", options)
    before = packed_splits(tmp_path / "out")
    for person in range(8):
        save(draw(person + 8), tmp_path / f"in/{('ant', 'bee')[person % 2]}/p{person}_1.png")
    pack(find_sources(tmp_path / "in", group_regex=r"p\d+"), tmp_path / "out", options, update=True)
    splits = packed_splits(tmp_path / "out")
    assert set(before.values()) == {"train", "test"}
    assert splits == before | {name.replace("_0", "_1"): split for name, split in before.items()}


def test_merged_splits_are_dealt_out_among_the_new_pictures_only(split_dataset: tuple[Path, Path]) -> None:
    root, out = split_dataset
    before = packed_splits(out)
    for seed in range(18, 34):
        save(draw(seed), root / f"train/{('ant', 'bee')[seed % 2]}/{seed:03d}.png")
    merge = SMALL.model_copy(update={"split": SplitOptions(merge=("train", "test"), shares={"test": 0.5})})
    update(root, out, merge)
    after = packed_splits(out)
    assert {name: after[name] for name in before} == before
    assert sorted(split for name, split in after.items() if name not in before) == ["test"] * 8 + ["train"] * 8


# what an update refuses


def refuse(root: Path, out: Path, error: type[Exception], says: str, options: PackOptions = SMALL) -> None:
    """See that the update is refused in these words, and that the dataset is what it was byte for byte."""
    before = digests(out)
    with pytest.raises(error, match=says):
        update(root, out, options)
    assert digests(out) == before


def test_new_class_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    root = add(tmp_path / "in", range(24, 28))
    save(draw(99), root / "cat/1.png")
    refuse(root, made[1], UsageError, r"class 'cat' is new, and an update keeps the classes as they are \(ant, bee\)")


def test_changed_picture_is_refused(grown: tuple[Path, Path]) -> None:
    save(draw(99), grown[0] / "ant/000.png")
    refuse(*grown, ShardError, r"ant/000\.png is not the picture that was packed under this name")


@pytest.mark.parametrize(
    "change",
    [
        {"store": StoreOptions(max_side=32)},
        {"store": StoreOptions(decode=DecodeOptions(gray_range=(0, 4095)))},
        {"audit": "none"},
        {"split": SplitOptions(shares={}, fraction=0.5)},
    ],
)
def test_other_options_are_refused(grown: tuple[Path, Path], change: dict[str, object]) -> None:
    says = "do not go together" if "split" in change else "was packed with other options"
    refuse(*grown, UsageError, says, SMALL.model_copy(update=change))


def test_unlabelled_pictures_are_not_added_to_labelled_ones(made: tuple[Path, Path], tmp_path: Path) -> None:
    listed = find_sources(add(tmp_path / "in", range(24, 28)), unlabelled=True)
    with pytest.raises(UsageError, match="the new pictures are unlabelled but the dataset is single-label"):
        pack(listed, made[1], SMALL, update=True)


def test_pictures_of_several_labels_are_not_added_to_those_of_one(made: tuple[Path, Path], tmp_path: Path) -> None:
    add(tmp_path / "in", range(24, 26))
    (tmp_path / "in/list.csv").write_text("path,label\nant/024.png,ant;bee\nbee/025.png,bee\n")
    refuse(
        tmp_path / "in/list.csv",
        made[1],
        UsageError,
        "the new pictures are multi-label but the dataset is single-label",
    )


def test_dataset_that_was_indexed_in_place_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "foreign/train").mkdir(parents=True)
    for path in made[1].glob("train/*.tar"):
        shutil.copy(path, tmp_path / "foreign/train")
    index_foreign(tmp_path / "foreign")
    options = SMALL.model_copy(update={"audit": "none"})
    refuse(add(tmp_path / "in", range(24, 28)), tmp_path / "foreign", UsageError, "was indexed, not packed", options)


def test_damaged_table_is_refused(grown: tuple[Path, Path]) -> None:
    path = grown[1] / "shards.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    refuse(*grown, ShardError, r"shards\.parquet: sha256 differs from dataset\.json")


def test_lost_audit_is_refused_by_name(grown: tuple[Path, Path]) -> None:
    (grown[1] / "audit.parquet").unlink()
    refuse(*grown, ShardError, r"audit\.parquet cannot be read .* cannot be compared with the old ones; restore it")


def test_deep_pictures_are_judged_together_with_the_old_ones(tmp_path: Path) -> None:
    add(tmp_path / "in", range(8))
    ramp = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    Image.fromarray(ramp * 16).save(tmp_path / "in/ant/deep.png")
    pack(find_sources(tmp_path / "in"), tmp_path / "out", SMALL)
    Image.fromarray(ramp[::-1] * 5).save(tmp_path / "in/ant/darker.png")
    update(tmp_path / "in", tmp_path / "out")
    assert packed_splits(tmp_path / "out")["ant/darker.png"] == "train"


# stopped in the middle


def stop_at(stage: str, count: int) -> Callable[..., None]:
    """Return a progress callback that presses Ctrl-C at the `count`th call of a stage."""
    calls = 0

    def press(name: str, *_: int) -> None:
        nonlocal calls
        calls += name == stage
        if calls == count:
            raise KeyboardInterrupt

    return press


@pytest.fixture(scope="module")
def unstopped(made: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("unstopped")
    for source, name in zip(made, ("in", "out"), strict=True):
        shutil.copytree(source, root / name)
    update(add(root / "in", range(24, 36)), root / "out")
    return digests(root / "out")


@pytest.mark.parametrize(("stage", "count"), [("audit", 1), ("write", 1), ("write", 3)])
def test_stopped_update_leaves_the_old_dataset_whole_and_goes_on_to_the_same_bytes(
    grown: tuple[Path, Path], unstopped: dict[str, str], stage: str, count: int
) -> None:
    root, out = grown
    manifest = open_dataset(out).manifest
    shards = manifest.splits["train"].shards
    with pytest.raises(KeyboardInterrupt):
        update(root, out, run=Run(progress=stop_at(stage, count)))
    assert open_dataset(out).manifest == manifest
    assert verify_dataset(out) == Verified(shards, 24)
    kept = stamps(out / "train")
    assert len(kept) == 2 * shards + (2 * count if stage == "write" else 0)
    update(root, out)
    assert digests(out) == unstopped
    now = stamps(out / "train")
    assert {name: now[name] for name in kept} == kept


def test_update_that_fails_at_its_table_leaves_the_old_dataset_whole(
    grown: tuple[Path, Path], unstopped: dict[str, str]
) -> None:
    root, out = grown
    manifest = open_dataset(out).manifest
    (out / "shards.1.parquet").mkdir()  # what cannot be replaced stands for what cannot be written
    with pytest.raises(IsADirectoryError):
        update(root, out)
    assert open_dataset(out).manifest == manifest
    assert verify_dataset(out).pictures == 24
    (out / "shards.1.parquet").rmdir()
    update(root, out)
    assert digests(out) == unstopped


def test_dataset_verifies_at_every_moment_of_an_update(grown: tuple[Path, Path]) -> None:
    root, out = grown
    seen: list[int] = []
    update(root, out, run=Run(progress=lambda *_: seen.append(verify_dataset(out).pictures)))
    assert len(seen) > 3
    assert set(seen) == {24}


def test_update_that_was_given_up_is_tidied_away(grown: tuple[Path, Path], made: tuple[Path, Path]) -> None:
    root, out = grown
    with pytest.raises(KeyboardInterrupt):
        update(root, out, run=Run(progress=stop_at("write", 2)))
    shards = {path.name for path in (out / "train").iterdir()}
    assert shards > {path.name for path in (made[1] / "train").iterdir()}
    pack(find_sources(made[0]), out, SMALL)  # the pictures of before: the dataset is what it was
    ours = digests(out)
    assert {name: ours[name] for name in ours if not name.startswith("audit.")} == {
        name: digest for name, digest in digests(made[1]).items() if not name.startswith("audit.")
    }


def test_update_killed_just_after_it_published_is_tidied(grown: tuple[Path, Path], made: tuple[Path, Path]) -> None:
    root, out = grown
    update(root, out)
    expected = digests(out)
    shutil.copy(made[1] / "shards.parquet", out)
    (out / ".packing").mkdir()
    (out / ".packing/plan.json").write_text("{}")
    update(root, out)
    assert digests(out) == expected


def test_files_of_others_in_the_folder_of_a_dataset_stay(grown: tuple[Path, Path]) -> None:
    root, out = grown
    for name in ("README.md", "train/notes.txt", "train/000000.tar.bak", "test/000000.png"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("precious")
    update(root, out)
    update(root, out)
    for name in ("README.md", "train/notes.txt", "train/000000.tar.bak", "test/000000.png"):
        assert (out / name).read_text() == "precious"


# the mix of classes


@pytest.mark.parametrize(("bees", "warned"), [(6, False), (12, True)])
def test_other_mix_of_classes_is_warned_of(made: tuple[Path, Path], tmp_path: Path, bees: int, warned: bool) -> None:
    shutil.copytree(made[1], tmp_path / "out")
    for number in range(12):
        save(draw(100 + number), tmp_path / "in" / ("bee" if number < bees else "ant") / f"{100 + number}.png")
    if bees == 12:
        save(draw(0), tmp_path / "in/ant/000.png")  # an old one: a folder of one class is refused
    said: list[str] = []
    update(tmp_path / "in", tmp_path / "out", run=Run(report=said.append))
    warnings = [line for line in said if "another mix of classes" in line]
    assert len(warnings) == int(warned)
    if warned:
        assert "(50% of the samples would have to change class)" in warnings[0]


def test_display_names_stay_and_that_is_said(grown: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("ant Ameise\nbee Biene\n")
    said: list[str] = []
    listed: SourceList = find_sources(grown[0], class_names=tmp_path / "names.txt")
    manifest = pack(listed, grown[1], SMALL, Run(report=said.append), update=True)
    assert manifest.display_names == ["ant", "bee"]
    assert "the classes keep the display names that they were packed with" in said
    assert (grown[1] / MANIFEST_NAME).read_bytes() == manifest.encode()


# from the command line


def test_command_adds_and_then_has_nothing_to_add(grown: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pack", *map(str, grown), "--split", "none", "--shard-bytes", "30000", "--update", "--workers", "1"]
    assert main(words) == 0
    assert "36 samples in" in capsys.readouterr().out
    before = stamps(grown[1])
    assert main([*words, "--json"]) == 0
    told = capsys.readouterr()
    assert told.err == "note: nothing to add: the dataset holds every picture of the source that can be packed\n"
    assert json.loads(told.out)["updates"] == 1
    assert stamps(grown[1]) == before
