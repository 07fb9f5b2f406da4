"""What the names of folders mean: splits, classes or neither; and where that is not clear, a question with answers."""

from __future__ import annotations

import re
import shlex
import shutil
import zipfile
from pathlib import Path

import pytest
from data.tars import write_tar
from in_process import command

from shards.dataset.dataset import open_dataset
from shards.dataset.origin import read_origin
from shards.errors import UsageError
from shards.sources.find import find_sources
from shards.storage.storage import FolderStorage

Row = tuple[str, str, str | None]


def touch(root: Path, *names: str) -> Path:
    """Make empty files; a scan lists pictures without reading them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def zipped(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, b"")
    return path


def tree(tops: list[str], inside: list[str]) -> list[str]:
    return [f"{top}/{inner}/1.jpg" for top in tops for inner in inside]


def found(path: Path, layout: str | None = None) -> list[Row]:
    """Return name, class and split of each picture."""
    return [(source.name, *source.labels, source.split) for source in find_sources(path, layout=layout).sources]


def places(path: Path, layout: str | None = None) -> set[tuple[str, str | None]]:
    return {(label, split) for _, label, split in found(path, layout)}


def refusal(path: Path, layout: str | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        find_sources(path, layout=layout)
    return str(caught.value)


def remedies(message: str) -> list[str]:
    """Return the layouts that a message names, as a shell reads them."""
    return [shlex.split(word)[0] for word in re.findall(r"--layout ('[^']*'|[^\s,;]+)", message)]


# words


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["Training", "Testing"], ["train", "test"]),
        (["TRAIN", "Val"], ["train", "val"]),
        (["train_set", "test_set"], ["train", "test"]),
        (["training_set", "test_set", "validation_set"], ["train", "test", "val"]),
        (["train-images", "test-images"], ["train", "test"]),
        (["images_train", "images_valid"], ["train", "val"]),
        (["TrainingData", "TestingData"], ["train", "test"]),
        (["train2017", "val2017"], ["train", "val"]),
        (["Train Set", "Test Set"], ["train", "test"]),
        (["train", "dev", "test"], ["train", "val", "test"]),
        (["train", "holdout"], ["train", "test"]),
        (["train", "hold_out_set"], ["train", "test"]),
        (["train", "eval"], ["train", "val"]),
        (["train", "evaluation", "test"], ["train", "val", "test"]),
        (["training", "validation", "evaluation"], ["train", "val", "test"]),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_words_of_the_field_are_splits_and_that_is_said(
    tmp_path: Path, names: list[str], splits: list[str], kind: str
) -> None:
    files = tree(names, ["cat", "dog"])
    root = touch(tmp_path / "in", *files) if kind == "folder" else zipped(tmp_path / "in.zip", *files)
    expected = {(f"{n}/{c}/1.jpg", c, split) for n, split in zip(names, splits, strict=True) for c in ("cat", "dog")}
    assert set(found(root)) == expected
    said = [note for note in find_sources(root).notes if "read as splits" in note]
    assert len(said) == (0 if {name.lower() for name in names} <= {"train", "val", "test"} else 1)
    assert all(f"'{name}' as {split}" in note for note in said for name, split in zip(names, splits, strict=True))


def test_evaluation_beside_val_and_test_is_no_split_and_refused(tmp_path: Path) -> None:
    touch(tmp_path, *tree(["train", "val", "test", "eval"], ["cat", "dog"]))
    assert "mixes split folders with 'eval'" in refusal(tmp_path)


def test_two_words_for_one_split_are_one_split_and_that_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg", "validation/b/3.jpg")
    assert places(tmp_path) == {("a", "train"), ("b", "train"), ("a", "val"), ("b", "val")}
    assert find_sources(tmp_path).notes == [
        "the names of folders are read as splits: 'train' as train, 'val' as val, 'validation' as val"
    ]


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("inner", ["seg_{}", "{}", "{}ing"])
def test_folder_of_the_same_name_in_a_split_means_nothing(tmp_path: Path, kind: str, inner: str) -> None:
    files = [
        f"seg_{name}/{inner.format(name)}/{label}/1.jpg" for name in ("train", "test") for label in ("buildings", "sea")
    ]
    root = touch(tmp_path / "in", *files) if kind == "folder" else zipped(tmp_path / "in.zip", *files)
    assert places(root) == {(label, split) for label in ("buildings", "sea") for split in ("train", "test")}


def test_folder_that_two_classes_of_a_split_link_to_belongs_to_both(tmp_path: Path) -> None:
    root = touch(tmp_path / "in", *tree(["train_set", "test_set"], ["a", "b"]))
    touch(tmp_path / "elsewhere", "2.jpg")
    for label in "ab":
        (root / "train_set" / label / "more").symlink_to(tmp_path / "elsewhere")
    names = [name for name, *_ in found(root)]
    assert {"train_set/a/more/2.jpg", "train_set/b/more/2.jpg"} < set(names)


# classes that have such words


@pytest.mark.parametrize(
    "classes",
    [
        ["test_tube", "flask"],
        ["evaluation_board", "dev-kit", "wire"],
        ["train_station", "bus_stop"],
        ["train_station", "train_track", "road"],
        ["train_set_toy", "test_tube", "flask"],  # no splits: their pictures lie right in them
        ["test_tube", "evaluation_board"],  # nothing to train on
        ["dev", "prod"],
        ["trainer", "tester"],
    ],
)
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_classes_that_have_such_words_stay_classes(tmp_path: Path, classes: list[str], kind: str) -> None:
    files = [f"{label}/1.jpg" for label in classes]
    root = touch(tmp_path / "in", *files) if kind == "folder" else zipped(tmp_path / "in.zip", *files)
    assert places(root) == {(label, None) for label in classes}
    assert find_sources(root).notes == []


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["train/1.jpg", "car/1.jpg", "plane/1.jpg"], "mixes split folders with 'car'"),
        (["valid/1.jpg", "invalid/1.jpg"], "mixes split folders with 'invalid'"),
        (["train_track/1.jpg", "test_tube/1.jpg"], "read as splits, but there are no class folders in them"),
        (["train_a/x/1.jpg", "train_b/x/1.jpg", "test/x/1.jpg"], "'train_a', 'train_b' all read as train"),
        (["train/x/1.jpg", "train_masks/y/1.jpg"], "'train', 'train_masks' all read as train"),
        (["cats_train/a/1.jpg", "dogs_train/a/1.jpg", "cats_test/1.jpg"], "'cats_train', 'dogs_train' all read"),
        (["train_kit/a/1.jpg", "test_kit/b/1.jpg"], "class 'b' has no pictures in train"),
        (["train_kit/a/1.jpg", "test_kit/a/1.jpg"], "has only one class, 'a'"),
    ],
)
def test_where_words_may_mean_both_one_option_makes_classes_of_them(
    tmp_path: Path, files: list[str], says: str
) -> None:
    message = refusal(touch(tmp_path, *files))
    assert says in message
    assert "--layout class/..." in message
    assert places(tmp_path, "class/...") == {(name.partition("/")[0], None) for name in files}


@pytest.mark.parametrize("tops", [["seg_train", "seg_test"], ["Training", "Testing"], ["train", "test"]])
def test_folder_beside_splits_is_left_out_or_made_a_class_by_an_option(tmp_path: Path, tops: list[str]) -> None:
    message = refusal(touch(tmp_path, *tree(tops, ["sea", "forest"]), "seg_pred/seg_pred/1.jpg"))
    assert "mixes split folders with 'seg_pred'" in message
    assert remedies(message) == ["split/class", "class/..."]
    assert places(tmp_path, "split/class") == {(c, s) for c in ("sea", "forest") for s in ("train", "test")}
    assert find_sources(tmp_path, layout="split/class").notes[-1] == (
        "1 picture lies in folders that --layout split/class leaves out (the first is 'seg_pred/seg_pred/1.jpg'), "
        "and so in no shard"
    )
    assert places(tmp_path, "class/...") == {(top, None) for top in (*tops, "seg_pred")}


@pytest.mark.parametrize("layout", ["split/any/class", "any/split/class", "any/any/class/..."])
def test_layout_that_names_each_folder_of_a_doubled_tree_is_taken_as_it_is(tmp_path: Path, layout: str) -> None:
    names = tree(["seg_train/seg_train", "seg_test/seg_test"], ["sea", "forest"])
    expected = {(c, s if "split" in layout else None) for c in ("sea", "forest") for s in ("train", "test")}
    assert places(touch(tmp_path, *names), layout) == expected
    assert places(tmp_path, "any/class/...") == {("seg_train", None), ("seg_test", None)}


def test_layout_that_names_no_folder_between_split_and_class_reads_a_doubled_tree_as_if_none_was_named(
    tmp_path: Path,
) -> None:
    touch(tmp_path, *tree(["seg_train/seg_train", "seg_test/seg_test"], ["sea", "forest"]))
    assert places(tmp_path, "split/class") == {(c, s) for c in ("sea", "forest") for s in ("train", "test")}


@pytest.mark.parametrize("layout", ["class/images", "class/images/...", "split/class", "any/class/.", "class"])
def test_layout_is_repeated_as_it_was_given(tmp_path: Path, layout: str) -> None:
    touch(tmp_path, "1.jpg")
    with pytest.raises(UsageError, match=re.escape(f"in folders that fit --layout {layout} (")):
        find_sources(tmp_path, layout=layout)


# folders below the classes


@pytest.mark.parametrize("kind", ["folder", "zip", "wrapped zip", "tar"])
def test_splits_below_classes_are_refused_with_an_option_for_each_reading(tmp_path: Path, kind: str) -> None:
    files = tree(["cat", "dog"], ["Train", "test"])
    if kind == "folder":
        root = touch(tmp_path / "in", *files)
    elif kind == "tar":
        root = write_tar(tmp_path / "in.tar", dict.fromkeys(files, b""))
    else:
        root = zipped(tmp_path / "in.zip", *(f"pets/{name}" if "wrapped" in kind else name for name in files))
    message = refusal(root)
    assert message == (
        f"{root}: all classes hold the same subfolders Train, test, whose meaning is unclear: give --layout "
        "class/split for the classes cat, dog in the splits Train, test, or --layout class/... for the classes cat, "
        "dog with everything below them"
    )
    assert remedies(message) == ["class/split", "class/..."]
    assert places(root, "class/split") == {(c, s) for c in ("cat", "dog") for s in ("train", "test")}
    assert places(root, "class/...") == {("cat", None), ("dog", None)}


def test_splits_below_one_class_alone_are_found_as_well(tmp_path: Path) -> None:
    message = refusal(touch(tmp_path, *tree(["cat", "dog"], ["train", "val"]), "bird/train/1.jpg"))
    assert "the class 'cat' holds the subfolders train, val" in message
    assert places(tmp_path, "class/split") == {
        ("cat", "train"), ("cat", "val"), ("dog", "train"), ("dog", "val"), ("bird", "train"),
    }  # fmt: skip


@pytest.mark.parametrize("above", ["", "train/"])
def test_masks_beside_pictures_are_refused_and_an_option_takes_the_pictures(tmp_path: Path, above: str) -> None:
    files = tree([f"{above}COVID", f"{above}Normal"], ["images", "masks"])
    message = refusal(touch(tmp_path, *files))
    path = "split/class" if above else "class"
    assert "all classes hold the same subfolders images, masks" in message
    assert remedies(message) == [f"{path}/images", f"{path}/..."]
    assert {name for name, *_ in found(tmp_path, f"{path}/images")} == {name for name in files if "masks" not in name}
    assert {name for name, *_ in found(tmp_path, f"{path}/masks")} == {name for name in files if "masks" in name}
    assert {name for name, *_ in found(tmp_path, f"{path}/...")} == set(files)
    assert places(tmp_path, f"{path}/images") == {(c, "train" if above else None) for c in ("COVID", "Normal")}


def test_folder_with_a_blank_is_quoted_in_the_remedy(tmp_path: Path) -> None:
    message = refusal(touch(tmp_path, *tree(["cat", "dog"], ["the images", "masks"])))
    assert remedies(message) == ["class/the images", "class/..."]
    assert len(found(tmp_path, "class/the images")) == 2


def test_masks_of_one_class_below_its_pictures_are_found_as_well(tmp_path: Path) -> None:
    message = refusal(touch(tmp_path, "cat/1.png", "cat/masks/1.png", "dog/1.png"))
    assert "the class 'cat' holds the subfolders masks" in message
    assert remedies(message) == ["class/.", "class/..."]
    assert [name for name, *_ in found(tmp_path, "class/.")] == ["cat/1.png", "dog/1.png"]
    assert len(found(tmp_path, "class/...")) == 3


@pytest.mark.parametrize("tops", [["site1", "site2"], ["images", "masks"]])
def test_classes_below_other_folders_are_refused_with_an_option_for_each_reading(
    tmp_path: Path, tops: list[str]
) -> None:
    message = refusal(touch(tmp_path, *tree(tops, ["cat", "dog"])))
    assert "all classes hold the same subfolders cat, dog" in message
    assert remedies(message) == ["any/class", "class/...", "class/cat"]
    assert places(tmp_path, "any/class") == {("cat", None), ("dog", None)}
    assert places(tmp_path, "class/...") == {(tops[0], None), (tops[1], None)}
    assert [name for name, *_ in found(tmp_path, "class/cat")] == [f"{tops[0]}/cat/1.jpg", f"{tops[1]}/cat/1.jpg"]
    assert [name for name, *_ in found(tmp_path, f"{tops[0]}/class")] == tree(tops[:1], ["cat", "dog"])


def test_two_folders_in_common_are_enough_to_ask(tmp_path: Path) -> None:
    touch(tmp_path, *tree(["site1"], ["cat", "dog"]), *tree(["site2"], ["cat", "dog", "elk", "fox", "gnu", "hen"]))
    assert "all classes hold the same subfolders cat, dog, whose" in refusal(tmp_path)


def test_class_of_the_name_of_its_split_is_no_folder_around_classes(tmp_path: Path) -> None:
    touch(tmp_path, "train/car/1.jpg", "train/test/1.jpg", "test/test/1.jpg")
    assert places(tmp_path) == {("car", "train"), ("test", "train"), ("test", "test")}


@pytest.mark.parametrize(
    "files",
    [
        ["a/2019/1.jpg", "a/2020/1.jpg", "b/2019/1.jpg"],  # one name in common
        ["a/p1/1.jpg", "a/p2/1.jpg", "b/p3/1.jpg", "b/p4/1.jpg"],  # patients
        ["a/x/1.jpg", "b/x/1.jpg"],
        ["a/x/1.jpg", "a/1.jpg", "b/x/1.jpg", "b/1.jpg"],
        ["a/x/1.jpg", "a/y/1.jpg", "b/1.jpg"],
        ["a/test/1.jpg", "b/1.jpg"],
        ["a/masks/1.jpg", "b/1.jpg"],  # people with masks: the class holds nothing else
    ],
)
def test_folders_below_classes_that_are_not_alike_belong_to_them(tmp_path: Path, files: list[str]) -> None:
    assert places(touch(tmp_path, *files)) == {("a", None), ("b", None)}


# --layout


def test_layout_around_which_an_archive_has_a_folder_fits_with_and_without_it(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", *(f"data/images/{label}/1.jpg" for label in "ab"))
    for layout in ("class/...", "images/class", "data/images/class", "any/any/class"):
        assert places(path, layout) == {("a", None), ("b", None)}


@pytest.mark.parametrize(
    "layout", ["", "split", "class/class", "split/split/class", "class//split", "../class", "class/.../split"]
)
def test_layout_that_is_none_is_refused_with_the_form(tmp_path: Path, layout: str) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    assert "--layout sets what the folders mean, for example split/class or class/split" in refusal(tmp_path, layout)


def test_layout_that_no_picture_fits_is_refused_with_a_folder_as_it_is(tmp_path: Path) -> None:
    touch(tmp_path, *tree(["a", "b"], ["x", "y"]))
    assert refusal(tmp_path, "class/z") == (
        f"{tmp_path} has no picture in folders that fit --layout class/z (the first of 4 folders is 'a/x'); "
        "correct it, or leave it out to use the folders' names"
    )


def test_layout_of_what_has_no_folders_that_mean_anything_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "list.csv").write_text("path,label\n1.jpg,a\n2.jpg,b\n")
    assert "list.csv is a list, whose columns give class and split; leave it out" in refusal(
        tmp_path / "list.csv", "split/class"
    )
    write_tar(tmp_path / "tars/0.tar", {"1.jpg": b"", "1.cls": b"0", "2.jpg": b"", "2.cls": b"1"})
    assert "tars is a folder of tars with a label beside each picture" in refusal(tmp_path / "tars", "split/class")
    with pytest.raises(UsageError, match="--unlabelled uses no classes; give one of them"):
        find_sources(tmp_path, unlabelled=True, layout="split/class")


# tars and lists


@pytest.mark.parametrize(
    "names",
    [
        ["Training/0.tar", "Testing/0.tar"],
        ["train_set/0.tar", "test_set/0.tar"],
        ["training-000000.tar", "testing-000000.tar"],
        ["imagenet-train-0.tar", "imagenet-evaluation-0.tar", "imagenet-dev-0.tar"],
        ["train/0.tar", "holdout/0.tar"],
    ],
)
def test_tars_are_split_by_the_same_words(tmp_path: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        files = {f"{number}{label}.{ending}": b"%d" % label for label in (0, 1) for ending in ("jpg", "cls")}
        write_tar(tmp_path / name, files)
    listed = find_sources(tmp_path)
    splits = {source.name.partition(".tar/")[0]: source.split for source in listed.sources}
    assert list(dict.fromkeys(splits[name.removesuffix(".tar")] for name in names)) == (
        ["train", "test", "val"] if len(names) == 3 else ["train", "test"]
    )
    assert len(listed.notes) == 1


def test_tars_of_which_some_have_such_a_word_are_not_split_by_it(tmp_path: Path) -> None:
    for number, name in enumerate(["dev-0.tar", "prod-0.tar"]):
        write_tar(tmp_path / name, {f"{number}.jpg": b"", f"{number}.cls": b"%d" % number})
    assert {source.split for source in find_sources(tmp_path).sources} == {None}


def test_values_of_the_column_split_are_the_same_words(tmp_path: Path) -> None:
    splits = ["Training", "training", "validation", "EVALUATION"]
    touch(tmp_path, *(f"{number}.jpg" for number in range(4)))
    rows = [f"{number}.jpg,{'ab'[number % 2]},{split}" for number, split in enumerate(splits)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    listed = find_sources(tmp_path / "list.csv")
    assert [source.split for source in listed.sources] == ["train", "train", "val", "test"]
    assert listed.notes == [
        f"{tmp_path}/list.csv: values of the column split are read as splits: 'EVALUATION' as test, "
        "'Training' as train, 'training' as train, 'validation' as val"
    ]


# from the command line


def test_command_takes_the_layout_and_records_it(pictures: Path, tmp_path: Path) -> None:
    for split, label in [(s, c) for s in ("train", "val") for c in ("blue", "red")]:
        shutil.copytree(pictures / split / label, tmp_path / "in" / label / split)
    refused = command("pack", tmp_path / "in", tmp_path / "out")
    assert (refused.returncode, remedies(refused.stderr)) == (2, ["class/split", "class/..."])
    done = command("pack", tmp_path / "in", tmp_path / "out", "--layout", "class/split")
    assert done.returncode == 0, done.stderr
    dataset = open_dataset(tmp_path / "out")
    assert dataset.classes == ["blue", "red"]
    assert {name: split.samples for name, split in dataset.manifest.splits.items()} == {"train": 48, "val": 16}
    assert read_origin(FolderStorage(tmp_path / "out")).commands[0].options == ["--layout", "class/split"]
    assert command("audit", tmp_path / "in", "--out", tmp_path / "audit", "--layout", "class/split").returncode == 0
