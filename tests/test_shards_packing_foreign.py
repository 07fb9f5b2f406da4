from __future__ import annotations

import io
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
from data.tars import write_tar
from PIL import Image

from shards.dataset.dataset import open_dataset
from shards.dataset.read import SampleReader
from shards.dataset.verify import verify_dataset
from shards.errors import ShardError, UsageError
from shards.packing.foreign import index_foreign
from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.sources.find import find_sources
from shards.splits.splits import SplitOptions

Files = dict[str, bytes]


def picture(number: int, size: tuple[int, int] = (5, 4), form: str = "PNG") -> bytes:
    """Return a picture that no other number has."""
    pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def shard(labels: list[int], first: int = 0) -> Files:
    """Return the files of a shard with a sample for each label, as webdataset's writer makes them."""
    files: Files = {}
    for number, label in enumerate(labels, start=first):
        files[f"{number:06d}.cls"] = str(label).encode()
        files[f"{number:06d}.png"] = picture(number)
    return files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three tars of well mixed samples: two of train, one of val."""
    write_tar(tmp_path / "wds/set-train-000.tar", shard([0, 1, 10, 9]))
    write_tar(tmp_path / "wds/set-train-001.tar", shard([1, 0, 9], first=4))
    write_tar(tmp_path / "wds/set-val-000.tar", shard([10, 0], first=7))
    return tmp_path / "wds"


def test_tars_are_a_source_with_label_and_split_of_each_sample(folder: Path) -> None:
    listed = find_sources(folder)
    assert [(s.name, s.labels, s.split) for s in listed.sources][3:8] == [
        ("set-train-000.tar/000003.png", ("9",), "train"),
        ("set-train-001.tar/000004.png", ("1",), "train"),
        ("set-train-001.tar/000005.png", ("0",), "train"),
        ("set-train-001.tar/000006.png", ("9",), "train"),
        ("set-val-000.tar/000007.png", ("10",), "val"),
    ]
    assert [listed.store.read(source) for source in listed.sources] == [picture(number) for number in range(9)]


def test_classes_that_are_numbers_keep_their_order(folder: Path) -> None:
    assert find_sources(folder).classes == ["0", "1", "9", "10"]


def test_store_of_tars_reads_in_order_and_in_another_process(folder: Path) -> None:
    listed = find_sources(folder)
    store = pickle.loads(pickle.dumps(listed.store))
    assert dict(store.read_in_order(reversed(listed.sources))) == {s: listed.store.read(s) for s in listed.sources}


def test_class_names_give_numbers_their_names(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("10 zehn\n9 neun\n1 eins\n0 正常肺部\n")
    listed = find_sources(folder, class_names=tmp_path / "names.txt")
    assert listed.display_names == ["正常肺部", "eins", "neun", "zehn"]


def test_single_tar_of_samples_is_told_from_an_archive_of_folders(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", shard([0, 1]))
    assert [(s.name, s.labels) for s in find_sources(path).sources] == [
        ("x.tar/000000.png", ("0",)),
        ("x.tar/000001.png", ("1",)),
    ]


def test_captions_beside_pictures_in_class_folders_are_no_labels(tmp_path: Path) -> None:
    files = {f"{label}/1.{ending}": b"text" for label in "ab" for ending in ("jpg", "txt")}
    assert find_sources(write_tar(tmp_path / "x.tar", files)).classes == ["a", "b"]


def test_dots_in_keys_keep_samples_apart_where_webdataset_makes_one_of_them(tmp_path: Path) -> None:
    files = {}
    for number in (1, 2):
        files |= {f"patient.{number}.jpeg": picture(number, form="JPEG"), f"patient.{number}.cls": b"%d" % number}
    path = write_tar(tmp_path / "x.tar", files)
    assert [(s.name, s.labels) for s in find_sources(path).sources] == [
        ("x.tar/patient.1.jpeg", ("1",)),
        ("x.tar/patient.2.jpeg", ("2",)),
    ]
    (theirs,) = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
    assert theirs["__key__"] == "patient"


@pytest.mark.parametrize(
    ("name", "data", "labels"),
    [
        ("k.cls", b"3\n", ("3",)),
        ("k.txt", " Käfer\n".encode(), ("Käfer",)),
        ("k.json", b'{"label": 3}', ("3",)),
        ("k.json", b'{"label": "cat", "other": [1]}', ("cat",)),
        ("k.json", b'{"labels": ["a", "b", "a"]}', ("a", "b")),
        ("k.JSON", b'{"label": "cat"}', ("cat",)),
    ],
)
def test_label_is_read_from_cls_text_or_json(tmp_path: Path, name: str, data: bytes, labels: tuple[str, ...]) -> None:
    path = write_tar(tmp_path / "x.tar", {name: data, "k.PNG": b"", "other.png": b"", "other.cls": b"z"})
    assert find_sources(path).sources[0].labels == labels


def test_label_may_stand_before_or_behind_its_picture_among_other_files(tmp_path: Path) -> None:
    files = {"a.png": b"", "b.cls": b"2", "a.npy": b"x", "a.cls": b"1", "._a.png": b"", "b.png": b""}
    assert [s.labels for s in find_sources(write_tar(tmp_path / "in/x.tar", files).parent).sources] == [("1",), ("2",)]


def test_json_gives_group_and_weight(tmp_path: Path) -> None:
    page = json.dumps({"label": "a", "group": "p7", "weight": 0.5}).encode()
    path = write_tar(tmp_path / "x.tar", {"1.png": b"", "1.json": page, "2.png": b"", "2.json": b'{"label": "b"}'})
    assert [(s.group, s.weight) for s in find_sources(path).sources] == [("p7", 0.5), ("", 1.0)]


def test_single_tar_with_one_label_missing_is_still_a_shard(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", shard([0, 1]) | {"k.png": b""})
    with pytest.raises(ShardError, match=r"'k\.png' has no label"):
        find_sources(path)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"k.png": b""}, r"'k\.png' has no label: there is no k\.cls, no k\.txt and no k\.json with"),
        ({"k.png": b"", "k.json": b'{"caption": "x"}'}, r"'k\.png' has no label"),
        ({"k.png": b"", "k.cls": b" \n"}, r"'k\.png' has no label"),
        ({"k.png": b"", "k.json": b"{"}, r"'k\.json' gives no label"),
        ({"k.png": b"", "k.cls": b"\xff\xfe"}, r"'k\.cls' gives no label"),
        ({"k.png": b"", "k.json": b'{"label": 1.5}'}, r"a label is text or an integer, got \[1\.5\]"),
        ({"k.png": b"", "k.json": b'{"label": true}'}, r"a label is text or an integer, got \[True\]"),
        ({"k.png": b"", "k.json": b'{"label": 1, "weight": 0}'}, "a weight is a number above 0, got 0"),
    ],
)
def test_picture_without_a_readable_label_is_refused_by_name(tmp_path: Path, files: Files, says: str) -> None:
    write_tar(tmp_path / "in/x.tar", shard([0, 1]) | files)
    with pytest.raises(ShardError, match=r"in/x\.tar: .*" + says):
        find_sources(tmp_path / "in")


def test_pictures_without_labels_can_be_taken_so(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/x.tar", {"a.png": b"1", "b.png": b"2"})
    listed = find_sources(tmp_path / "in", unlabelled=True)
    assert [(s.name, s.labels, s.split) for s in listed.sources] == [
        ("x.tar/a.png", (), "all"),
        ("x.tar/b.png", (), "all"),
    ]


@pytest.mark.parametrize(
    ("tar", "split"),
    [
        ("train/0.tar", "train"),
        ("Validation/0.tar", "val"),
        ("train-000.tar", "train"),
        ("imagenet-val-0001.tar", "val"),
        ("test_3.TAR", "test"),
    ],
)
def test_split_is_told_by_folder_or_name_of_the_tar(tmp_path: Path, tar: str, split: str) -> None:
    write_tar(tmp_path / "in" / "train-zz.tar", shard([0, 1]))
    write_tar(tmp_path / "in" / tar, shard([0, 1]))
    listed = find_sources(tmp_path / "in")
    assert {s.split for s in listed.sources if s.name.startswith(tar)} == {split}


def test_tars_without_a_split_leave_it_to_pack(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/trainers-0.tar", shard([0, 1]))
    assert {source.split for source in find_sources(tmp_path / "in").sources} == {None}


def test_tars_with_and_without_a_split_are_not_mixed(tmp_path: Path) -> None:
    for name in ("train-0.tar", "more-0.tar"):
        write_tar(tmp_path / "in" / name, shard([0, 1]))
    with pytest.raises(UsageError, match=r"'more-0\.tar' names no split but other tars do"):
        find_sources(tmp_path / "in")


def test_damaged_tar_is_refused_by_name(folder: Path) -> None:
    os.truncate(folder / "set-train-001.tar", 2000)
    with pytest.raises(ShardError, match=r"set-train-001\.tar .*; fetch or write it again"):
        find_sources(folder)


def test_folder_with_pictures_and_a_tar_is_a_folder_of_pictures(tmp_path: Path) -> None:
    write_tar(tmp_path / "a/x.tar", shard([0, 1]))
    for label in "ab":
        (tmp_path / label).mkdir(exist_ok=True)
        (tmp_path / label / "1.jpg").touch()
    listed = find_sources(tmp_path)
    assert ([source.name for source in listed.sources], listed.left_out) == (["a/1.jpg", "b/1.jpg"], {".tar": 1})


def test_foreign_tars_are_packed_like_any_source(folder: Path, tmp_path: Path) -> None:
    pack(find_sources(folder), tmp_path / "out", PackOptions())
    dataset = open_dataset(tmp_path / "out")
    assert {name: split.samples for name, split in dataset.manifest.splits.items()} == {"train": 7, "val": 2}
    assert verify_dataset(tmp_path / "out").pictures == 9


def test_own_dataset_can_be_packed_anew_with_its_names_groups_and_weights(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        for number in range(4):
            path = tmp_path / "in" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(100 * len(label) + number + (label == "dog") * 50))
    (tmp_path / "in/samples.csv").write_text("path,group,weight\ncat/1.png,p1,2\n")
    pack(find_sources(tmp_path / "in"), tmp_path / "out", PackOptions(split=SplitOptions(shares={})))
    listed = find_sources(tmp_path / "out")
    assert (listed.classes, len(listed.sources)) == (["cat", "dog"], 8)
    assert [(s.labels, s.weight) for s in listed.sources if s.group == "p1"] == [(("cat",), 2.0)]


def read_all(folder: Path) -> list[tuple[str, int, int, bytes]]:
    dataset = open_dataset(folder)
    rows = []
    for name in dataset.manifest.splits:
        split = dataset.split(name)
        with SampleReader(split) as reader:
            for number, count in enumerate(split.counts.tolist()):
                samples = reader.read(number, np.arange(count))
                rows += [(name, sample.sample_id, sample.label, sample.data) for sample in samples]
    return rows


def test_index_makes_a_dataset_of_tars_where_they_lie(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    manifest, warnings = index_foreign(folder)
    assert (manifest.classes, warnings) == (["0", "1", "9", "10"], [])
    labels = [0, 1, 3, 2, 1, 0, 2, 3, 0]
    assert read_all(folder) == [
        ("train" if number < 7 else "val", number, label, picture(number)) for number, label in enumerate(labels)
    ]
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert verify_dataset(folder).pictures == 9


def test_index_knows_size_and_mode_of_every_picture(tmp_path: Path) -> None:
    files = {"b.gif": picture(1, (2, 9), "GIF"), "b.cls": b"1", "a.png": picture(0, (7, 3)), "a.cls": b"0"}
    write_tar(tmp_path / "in/train.tar", files)
    index_foreign(tmp_path / "in")
    index = pq.read_table(tmp_path / "in/train.index.parquet").to_pylist()
    assert [(row["key"], row["width"], row["height"], row["mode"]) for row in index] == [
        ("b", 2, 9, "P"),
        ("a", 7, 3, "RGB"),
    ]


def test_index_in_subfolders_and_with_names_of_classes(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_tar(tmp_path / "in" / split / "a.0.tar", shard([0, 1]))
    (tmp_path / "names.txt").write_text("0 null\n1 eins\n")
    manifest, _ = index_foreign(tmp_path / "in", class_names=tmp_path / "names.txt")
    assert (manifest.display_names, list(manifest.splits)) == (["null", "eins"], ["train", "test"])
    assert len(read_all(tmp_path / "in")) == 4


def test_index_again_takes_new_tars_in(folder: Path) -> None:
    index_foreign(folder)
    write_tar(folder / "set-val-001.tar", shard([1, 0, 9], first=20))
    manifest, _ = index_foreign(folder)
    assert manifest.splits["val"].samples == 5
    assert verify_dataset(folder).pictures == 12


def test_index_shows_its_progress(folder: Path) -> None:
    calls: list[tuple[str, int, int, int]] = []
    index_foreign(folder, progress=lambda *call: calls.append(call))
    assert [call[:3] for call in calls] == [("index", 4, 9), ("index", 7, 9), ("index", 9, 9)]
    assert sum(call[3] for call in calls) == sum(path.stat().st_size for path in folder.glob("*.tar"))


@pytest.mark.parametrize(
    ("shards", "warned"),
    [
        ([[0] * 10, [1] * 10], True),
        ([[0] * 9 + [1], [1] * 9 + [0]], True),
        ([[0] * 8 + [1] * 2, [1] * 8 + [0] * 2], False),
        ([[0, 1] * 5, [1, 0] * 5, [1] * 10], False),
        ([[0] * 19 + [1], [0] * 19 + [1]], False),
    ],
    ids=["pure", "nearly pure", "skewed", "one of three", "rare class, well mixed"],
)
def test_index_warns_when_shards_hold_one_class_each(tmp_path: Path, shards: list[list[int]], warned: bool) -> None:
    for number, labels in enumerate(shards):
        write_tar(tmp_path / "in" / f"train-{number}.tar", shard(labels, first=100 * number))
    _, warnings = index_foreign(tmp_path / "in")
    assert bool(warnings) is warned
    if warned:
        assert f"`python -m shards pack {tmp_path}/in OUT` shuffles the samples by a seeded permutation" in warnings[0]


def test_index_says_that_tars_without_a_split_are_train(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/0.tar", shard([0, 1]))
    manifest, warnings = index_foreign(tmp_path / "in")
    assert list(manifest.splits) == ["train"]
    assert "no tar names a split, so all pictures are train" in warnings[0]


def test_index_names_pictures_that_cannot_be_opened(folder: Path) -> None:
    write_tar(folder / "set-train-002.tar", shard([0, 1], first=30) | {"bad.png": b"no picture", "bad.cls": b"0"})
    _, warnings = index_foreign(folder)
    assert warnings == [
        "1 picture cannot be opened (the first is set-train-002.tar/bad.png), and training stops at such a picture; "
        f"`python -m shards pack {folder} OUT` leaves them out"
    ]


def test_index_refuses_a_packed_dataset(folder: Path, tmp_path: Path) -> None:
    pack(find_sources(folder), tmp_path / "out", PackOptions())
    before = (tmp_path / "out/dataset.json").read_bytes()
    with pytest.raises(UsageError, match="is already a packed dataset"):
        index_foreign(tmp_path / "out")
    assert (tmp_path / "out/dataset.json").read_bytes() == before


def test_index_of_a_folder_without_tars_names_the_command_for_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(UsageError, match="holds no tars to index; to pack pictures, use `python -m shards pack`"):
        index_foreign(tmp_path)


def test_index_that_fails_leaves_no_dataset(folder: Path) -> None:
    index_foreign(folder)
    (folder / "set-val-000.index.parquet").unlink()
    (folder / "set-val-000.index.parquet").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        index_foreign(folder)
    with pytest.raises(UsageError, match="is not a dataset"):
        open_dataset(folder)
