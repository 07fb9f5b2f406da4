"""What pack does about the findings of its audit: refuse, allow, drop, keep together, put into quarantine."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from data.scenes import draw
from in_process import command
from PIL import Image

from shards.audit.examine import JOURNAL
from shards.dataset.dataset import open_dataset
from shards.dataset.manifest import MANIFEST_NAME, Manifest
from shards.errors import ShardError, UsageError
from shards.packing.claim import MARKER, QUARANTINE
from shards.packing.options import PackOptions
from shards.packing.pack import Run, pack
from shards.sources.find import find_sources
from shards.sources.model import FolderStore, Source, SourceList
from shards.splits.splits import SplitOptions

ALL_TRAIN = PackOptions(split=SplitOptions(shares={}))


def save(image: Image.Image, path: Path, **options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def make_splits(root: Path, splits: tuple[str, ...] = ("train", "test"), per_class: int = 3) -> Path:
    """Write split/class folders of different pictures."""
    names = [f"{split}/{label}/{n}.png" for split in splits for label in ("ant", "bee") for n in range(per_class)]
    for seed, name in enumerate(names):
        save(draw(seed), root / name)
    return root


def make_classes(root: Path, per_class: int = 6) -> Path:
    for seed in range(2 * per_class):
        save(draw(seed), root / ("ant", "bee")[seed % 2] / f"{seed // 2}.png")
    return root


def save_copy(source: Path, target: Path, kind: str) -> None:
    """Write the picture of `source` again: the same pixels in another file, or smaller and compressed."""
    with Image.open(source) as image:
        if kind == "exact":
            save(image, target.with_suffix(".png"), compress_level=1)
        else:
            save(image.resize((48, 48), Image.Resampling.BICUBIC), target.with_suffix(".jpg"), quality=75)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def packed_splits(out: Path) -> dict[str, str]:
    """Return the split of each picture by its name, as the indexes of the shards tell it."""
    return {
        name: path.parent.name
        for path in out.rglob("*.index.parquet")
        for name in pq.read_table(path)["source"].to_pylist()
    }


def quarantine(out: Path) -> dict[str, str]:
    with open(out / QUARANTINE, newline="", encoding="utf-8") as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


def try_pack(root: Path, out: Path, options: PackOptions = ALL_TRAIN) -> str:
    """Return the sentence with which the pictures are refused."""
    with pytest.raises(ShardError) as caught:
        pack(find_sources(root), out, options)
    assert not (out / MANIFEST_NAME).exists()
    assert not list(out.rglob("*.tar*"))
    return str(caught.value)


# leaks


@pytest.fixture(scope="module", params=["exact", "near"])
def leaky(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Given splits in which test holds a copy of train/ant/0.png; read only."""
    root = make_splits(tmp_path_factory.mktemp("leaky") / "in")
    save_copy(root / "train/ant/0.png", root / "test/ant/copy", request.param)
    return root


def find_copy(root: Path) -> str:
    (copy,) = root.glob("test/ant/copy.*")
    return copy.relative_to(root).as_posix()


def test_copy_across_given_splits_is_refused_with_both_names(leaky: Path, tmp_path: Path) -> None:
    message = try_pack(leaky, tmp_path / "out")
    assert f"{find_copy(leaky)} [test] = train/ant/0.png [train]" in message
    assert "--drop-duplicates keeps one of each set of equal pictures" in message
    assert "(1 cases" in message


def test_command_exits_3_for_a_leak_in_one_sentence_and_the_page_shows_it(leaky: Path, tmp_path: Path) -> None:
    done = command("pack", leaky, tmp_path / "out")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1), done.stderr
    assert f"{find_copy(leaky)} [test] = train/ant/0.png [train]" in done.stderr
    page = (tmp_path / "out/audit.html").read_text()
    assert find_copy(leaky) in page
    assert "train/ant/0.png" in page
    table = pq.read_table(tmp_path / "out/audit.parquet").to_pylist()
    assert {row["source"] for row in table if row["finding"] == "leak"} == {find_copy(leaky), "train/ant/0.png"}


def test_allowed_leak_is_packed_and_counted_in_the_manifest(leaky: Path, tmp_path: Path) -> None:
    manifest = pack(find_sources(leaky), tmp_path / "out", PackOptions(allow_leaks=True))
    assert (manifest.audited.leaks, manifest.audited.duplicates, manifest.audited.dropped) == (1, 0, 0)
    assert {find_copy(leaky), "train/ant/0.png"} <= set(packed_splits(tmp_path / "out"))


def test_dropping_duplicates_keeps_the_copy_in_test(leaky: Path, tmp_path: Path) -> None:
    manifest = pack(find_sources(leaky), tmp_path / "out", PackOptions(drop_duplicates=True))
    names = {source.name for source in find_sources(leaky).sources}
    assert set(packed_splits(tmp_path / "out")) == names - {"train/ant/0.png"}
    assert quarantine(tmp_path / "out") == {"train/ant/0.png": f"equal to {find_copy(leaky)} in test"}
    assert (manifest.audited.leaks, manifest.audited.dropped, manifest.quarantined) == (0, 1, 0)


def test_command_tells_how_many_duplicates_were_dropped(leaky: Path, tmp_path: Path) -> None:
    done = command("pack", leaky, tmp_path / "out", "--drop-duplicates")
    assert done.returncode == 0, done.stderr
    assert f"left out 1 duplicates, listed in {tmp_path}/out/quarantine.csv" in done.stdout.splitlines()


def test_pictures_of_two_scenes_are_no_leak(tmp_path: Path) -> None:
    manifest = pack(find_sources(make_splits(tmp_path / "in", per_class=8)), tmp_path / "out")
    assert (manifest.audited.leaks, manifest.audited.duplicates) == (0, 0)


def test_copies_inside_one_split_are_packed_and_counted(tmp_path: Path) -> None:
    root = make_splits(tmp_path / "in")
    save_copy(root / "train/ant/0.png", root / "train/ant/copy", "exact")
    assert pack(find_sources(root), tmp_path / "out").audited.duplicates == 1
    assert len(packed_splits(tmp_path / "out")) == 13


# conflicts


@pytest.fixture(params=["exact", "near"])
def conflict(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """One picture in two classes of train."""
    root = make_splits(tmp_path / "in")
    save_copy(root / "train/ant/0.png", root / "train/bee/copy", request.param)
    return root


def test_picture_with_two_labels_is_refused_with_both(conflict: Path, tmp_path: Path) -> None:
    message = try_pack(conflict, tmp_path / "out")
    assert "equal pictures have different labels (1 cases: train/ant/0.png [ant] = train/bee/copy." in message
    assert " [bee])" in message


def test_picture_with_two_labels_is_dropped_on_both_sides(conflict: Path, tmp_path: Path) -> None:
    manifest = pack(find_sources(conflict), tmp_path / "out", PackOptions(drop_duplicates=True))
    dropped = {"train/ant/0.png", *(f"train/bee/{path.name}" for path in conflict.glob("train/bee/copy.*"))}
    assert len(dropped) == 2
    assert set(quarantine(tmp_path / "out")) == dropped
    assert set(packed_splits(tmp_path / "out")) == {s.name for s in find_sources(conflict).sources} - dropped
    assert (manifest.audited.conflicts, manifest.audited.dropped) == (0, 2)


def test_allowed_conflict_is_packed_and_counted(conflict: Path, tmp_path: Path) -> None:
    assert pack(find_sources(conflict), tmp_path / "out", PackOptions(allow_leaks=True)).audited.conflicts == 1
    assert len(packed_splits(tmp_path / "out")) == 13


# random splits


@pytest.fixture(scope="module")
def with_copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 8 pictures, of which each class has one with an exact and one with a near copy; read only."""
    root = make_classes(tmp_path_factory.mktemp("copies") / "in", per_class=8)
    for label in ("ant", "bee"):
        save_copy(root / label / "1.png", root / label / "1-copy", "exact")
        save_copy(root / label / "2.png", root / label / "2-copy", "near")
    return root


@pytest.mark.parametrize("seed", range(8))
def test_random_splits_keep_copies_together(with_copies: Path, tmp_path: Path, seed: int) -> None:
    options = PackOptions(split=SplitOptions(seed=seed, shares={"val": 0.3, "test": 0.3}))
    manifest = pack(find_sources(with_copies), tmp_path / "out", options)
    splits = packed_splits(tmp_path / "out")
    assert (len(splits), manifest.audited.leaks, manifest.audited.duplicates) == (20, 0, 4)
    for label in ("ant", "bee"):
        assert splits[f"{label}/1.png"] == splits[f"{label}/1-copy.png"]
        assert splits[f"{label}/2.png"] == splits[f"{label}/2-copy.jpg"]


def test_seeds_do_not_all_put_the_copies_into_train(with_copies: Path, tmp_path: Path) -> None:
    found = set()
    for seed in range(8):
        options = PackOptions(split=SplitOptions(seed=seed, shares={"val": 0.3, "test": 0.3}))
        pack(find_sources(with_copies), tmp_path / f"out{seed}", options)
        found.add(packed_splits(tmp_path / f"out{seed}")["ant/1.png"])
    assert len(found) > 1


def test_every_nth_picture_that_has_a_copy_in_train_is_refused_as_a_leak(tmp_path: Path) -> None:
    root = make_classes(tmp_path / "in", per_class=4)
    save_copy(root / "ant/2.png", root / "ant/0-copy", "exact")  # in order: 0-copy, 0, 1, 2, 3
    message = try_pack(root, tmp_path / "out", PackOptions(split=SplitOptions(every=2)))
    assert "ant/0-copy.png [train] = ant/2.png [test]" in message


# groups


def test_groups_that_cross_given_splits_are_refused_by_name(tmp_path: Path) -> None:
    root = make_splits(tmp_path / "in")
    save(draw(50), root / "train/ant/person7_1.png")
    save(draw(51), root / "test/ant/person7_2.png")
    listed = find_sources(root, group_regex=r"(person\d+)")
    with pytest.raises(ShardError, match=r"groups lie in several splits \(1 cases: person7 in test, train\)"):
        pack(listed, tmp_path / "out")
    manifest = pack(listed, tmp_path / "out", PackOptions(allow_leaks=True))
    assert manifest.audited.crossing_groups == 1


def test_command_keeps_groups_in_one_split(tmp_path: Path) -> None:
    for seed in range(24):
        save(draw(seed), tmp_path / "in" / ("ant", "bee")[seed % 2] / f"person{seed // 4}_{seed}.png")
    options = ("--group-regex", r"(person\d+)", "--split", "val=0.3,test=0.3")
    done = command("pack", tmp_path / "in", tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    splits = packed_splits(tmp_path / "out")
    persons = {(re.findall(r"person\d+", name)[0], split) for name, split in splits.items()}
    assert (len(splits), len(persons), len({split for _, split in persons})) == (24, 6, 3)
    groups = pq.read_table(tmp_path / "out/train/000000.index.parquet", columns=["source", "group"]).to_pylist()
    assert all(row["source"].split("/")[1].startswith(f"{row['group']}_") for row in groups)


# what a refusal leaves, and what it leaves alone


def test_refused_pictures_leave_pages_of_all_of_them(tmp_path: Path) -> None:
    root = make_splits(tmp_path / "in")
    save_copy(root / "train/ant/0.png", root / "test/ant/copy", "exact")
    try_pack(root, tmp_path / "out")
    assert pq.read_table(tmp_path / "out/audit.parquet").num_rows == 13
    assert "<html" in (tmp_path / "out/audit.html").read_text()
    assert not (tmp_path / "out" / QUARANTINE).exists()


@dataclass(frozen=True)
class CountingStore:
    """A folder that notes the name of every picture that is read."""

    inner: FolderStore
    reads: list[str] = field(default_factory=list)
    random_access: bool = True

    def read(self, source: Source) -> bytes:
        self.reads.append(source.name)
        return self.inner.read(source)

    def read_in_order(self, sources: Iterator[Source]) -> Iterator[tuple[Source, bytes]]:
        for source in sources:
            yield source, self.inner.read(source)  # what the page shows is read again


def count_reads(listed: SourceList) -> tuple[SourceList, list[str]]:
    assert isinstance(listed.store, FolderStore)
    store = CountingStore(listed.store)
    return replace(listed, store=store), store.reads


def test_pictures_that_were_refused_are_not_decoded_again(tmp_path: Path) -> None:
    root = make_splits(tmp_path / "in")
    save_copy(root / "train/ant/0.png", root / "test/ant/copy", "exact")
    listed, reads = count_reads(find_sources(root))
    with pytest.raises(ShardError):
        pack(listed, tmp_path / "out")
    assert sorted(reads) == [source.name for source in listed.sources]
    reads.clear()
    with pytest.raises(ShardError):
        pack(listed, tmp_path / "out")
    assert reads == []
    pack(listed, tmp_path / "out", PackOptions(allow_leaks=True))
    assert sorted(reads) == [source.name for source in listed.sources]  # once, to be written
    assert not (tmp_path / "out" / JOURNAL).exists()


def test_picture_that_changed_after_a_refusal_is_decoded_again(tmp_path: Path) -> None:
    root = make_splits(tmp_path / "in")
    save_copy(root / "train/ant/0.png", root / "test/ant/copy", "exact")
    try_pack(root, tmp_path / "out")
    save(draw(99), root / "test/ant/copy.png")
    assert pack(find_sources(root), tmp_path / "out").audited.leaks == 0


@pytest.mark.parametrize("findings", ["clean", "leaky"])
def test_finished_dataset_is_not_touched_by_a_pack_of_other_pictures(tmp_path: Path, findings: str) -> None:
    first, other = make_splits(tmp_path / "first"), make_splits(tmp_path / "other", per_class=4)
    (first / "train/ant/bad.png").write_bytes(b"")
    if findings == "leaky":
        save_copy(other / "train/ant/0.png", other / "test/ant/copy", "exact")
    pack(find_sources(first), tmp_path / "out", PackOptions(max_reject_rate=1))
    before = digests(tmp_path / "out")
    with pytest.raises(UsageError if findings == "clean" else ShardError):
        pack(find_sources(other), tmp_path / "out")
    assert digests(tmp_path / "out") == before
    assert list(quarantine(tmp_path / "out")) == ["train/ant/bad.png"]


def test_finished_dataset_is_refused_to_other_display_names(tmp_path: Path) -> None:
    listed = find_sources(make_classes(tmp_path / "in"))
    pack(listed, tmp_path / "out")
    with pytest.raises(UsageError, match="already holds a dataset of other pictures or options"):
        pack(replace(listed, display_names=["Ameise", "Biene"]), tmp_path / "out")


# pictures that the outside world keeps from us


@dataclass(frozen=True)
class FailingStore:
    """A folder on a disk that cannot read one file."""

    inner: FolderStore
    broken: str
    random_access: bool = True

    def read(self, source: Source) -> bytes:
        if source.name == self.broken:
            raise OSError(5, "Input/output error", source.name)
        return self.inner.read(source)

    def read_in_order(self, sources: Iterator[Source]) -> Iterator[tuple[Source, bytes]]:
        return ((source, self.read(source)) for source in sources)


def break_disk(listed: SourceList, name: str) -> SourceList:
    assert isinstance(listed.store, FolderStore)
    return replace(listed, store=FailingStore(listed.store, name))


def test_picture_that_the_disk_cannot_read_goes_to_quarantine(tmp_path: Path) -> None:
    listed = find_sources(make_classes(tmp_path / "in"))
    manifest = pack(
        break_disk(listed, "ant/3.png"), tmp_path / "out", ALL_TRAIN.model_copy(update={"max_reject_rate": 0.1})
    )
    assert manifest.quarantined == 1
    assert quarantine(tmp_path / "out") == {"ant/3.png": "the file cannot be read (Input/output error)"}
    assert set(packed_splits(tmp_path / "out")) == {source.name for source in listed.sources} - {"ant/3.png"}


def test_disk_that_was_mended_is_read_again_after_a_refusal(tmp_path: Path) -> None:
    listed = find_sources(make_classes(tmp_path / "in"))
    with pytest.raises(ShardError, match=r"1 of 12 pictures cannot be read.*ant/3\.png: the file cannot be read"):
        pack(break_disk(listed, "ant/3.png"), tmp_path / "out")
    assert pack(listed, tmp_path / "out").quarantined == 0


def test_picture_that_vanishes_during_the_audit_goes_to_quarantine(tmp_path: Path) -> None:
    listed = find_sources(make_classes(tmp_path / "in"))
    (tmp_path / "in/bee/2.png").unlink()
    pack(listed, tmp_path / "out", ALL_TRAIN.model_copy(update={"max_reject_rate": 0.1}))
    assert quarantine(tmp_path / "out") == {"bee/2.png": "the file cannot be read (No such file or directory)"}


@pytest.mark.parametrize("audit", ["full", "none"])
def test_picture_that_vanishes_before_it_is_written_stops_the_pack_by_name(tmp_path: Path, audit: str) -> None:
    listed = find_sources(make_classes(tmp_path / "in"))
    options = ALL_TRAIN.model_copy(update={"audit": audit, "shard_bytes": 1})

    def remove(stage: str, done: int, total: int, _: int) -> None:
        if stage == ("audit" if audit == "full" else "write") and done == (total if audit == "full" else 1):
            for path in (tmp_path / "in/bee").iterdir():
                path.unlink()

    with pytest.raises(
        ShardError, match=r"^bee/\d\.png vanished while the pictures were packed; nothing was published"
    ):
        pack(listed, tmp_path / "out", options, Run(progress=remove))
    assert not (tmp_path / "out" / MANIFEST_NAME).exists()


# the audit of its own


def test_audit_of_its_own_finds_what_pack_would_and_leaves_the_pages_alone(leaky: Path, tmp_path: Path) -> None:
    done = command("audit", leaky, "--out", tmp_path / "audit")
    assert done.returncode == 3, done.stderr
    assert f"{find_copy(leaky)} [test] = train/ant/0.png [train]" in done.stderr
    assert sorted(path.name for path in (tmp_path / "audit").iterdir()) == ["audit.html", "audit.parquet"]


@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_audit_does_not_write_into_a_dataset(tmp_path: Path, state: str) -> None:
    listed = find_sources(make_classes(tmp_path / "in"))
    if state == "finished":
        pack(listed, tmp_path / "out")
    else:

        def press(stage: str, *_: int) -> None:
            if stage == "write":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pack(listed, tmp_path / "out", run=Run(progress=press))
        assert (tmp_path / "out" / MARKER).exists()
    before = digests(tmp_path / "out")
    done = command("audit", make_classes(tmp_path / "other"), "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (
        2,
        f"error: {tmp_path}/out holds a dataset, which keeps the audit it was packed with; give another --out\n",
    )
    assert digests(tmp_path / "out") == before


def test_manifest_of_a_clean_set_says_that_it_was_audited(tmp_path: Path) -> None:
    made: Manifest = pack(find_sources(make_classes(tmp_path / "in")), tmp_path / "out")
    assert made.audited.model_dump() == {
        "level": "full", "duplicates": 0, "leaks": 0, "conflicts": 0, "crossing_groups": 0, "dropped": 0
    }  # fmt: skip
    assert open_dataset(tmp_path / "out").manifest == made
