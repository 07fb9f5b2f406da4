from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from PIL import Image

from shards.errors import UsageError
from shards.sources.folder import ENDINGS, scan_folder


def touch(root: Path, *names: str) -> Path:
    """Make empty files; a scan lists pictures without reading them."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def found(root: Path) -> list[tuple[str, str, str | None]]:
    return [(source.name, source.label, source.split) for source in scan_folder(root).sources]


def refusal(root: Path) -> str:
    with pytest.raises(UsageError) as caught:
        scan_folder(root)
    return str(caught.value)


def test_folders_are_classes(tmp_path: Path) -> None:
    touch(tmp_path, "dog/1.jpg", "cat/1.jpg")
    assert found(tmp_path) == [("cat/1.jpg", "cat", None), ("dog/1.jpg", "dog", None)]


def test_classes_are_sorted_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "b/1.jpg", "a/1.jpg", "C/1.jpg")
    assert scan_folder(tmp_path).classes == ["C", "a", "b"]


def test_sources_are_sorted_by_name_whatever_the_file_system_says(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{label}/{n}.jpg" for n in (10, 9, 1) for label in ("b", "a")))
    assert [name for name, *_ in found(tmp_path)] == sorted(name for name, *_ in found(tmp_path))


def test_nested_folders_belong_to_their_class(tmp_path: Path) -> None:
    touch(tmp_path, "a/2019/may/1.jpg", "b/1.jpg")
    assert found(tmp_path)[0] == ("a/2019/may/1.jpg", "a", None)


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("train", "train"),
        ("TRAIN", "train"),
        ("val", "val"),
        ("valid", "val"),
        ("Validation", "val"),
        ("test", "test"),
        ("Test", "test"),
    ],
)
def test_split_folder_goes_by_any_of_its_names(tmp_path: Path, folder: str, split: str) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", f"{folder}/a/2.jpg")
    assert (f"{folder}/a/2.jpg", "a", split) in found(tmp_path)


def test_val_may_be_missing(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/a/2.jpg")
    assert {split for *_, split in found(tmp_path)} == {"train", "test"}


def test_class_may_be_absent_from_val(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg")
    assert scan_folder(tmp_path).classes == ["a", "b"]


def test_hidden_files_and_folders_and_system_files_are_ignored(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    touch(tmp_path, "a/.DS_Store", "a/._1.jpg", "a/Thumbs.db", "a/desktop.ini", "a/.cache/2.jpg", ".git/x/3.jpg")
    listed = scan_folder(tmp_path)
    assert ([source.name for source in listed.sources], listed.left_out) == (["a/1.jpg", "b/1.jpg"], {})


@pytest.mark.parametrize("ending", sorted(ENDINGS))
def test_picture_endings_count_in_any_case(tmp_path: Path, ending: str) -> None:
    touch(tmp_path, f"a/lower{ending}", f"a/upper{ending.upper()}", "b/1.jpg")
    assert len(found(tmp_path)) == 3


def test_other_endings_are_counted_not_forgotten(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "a/notes.TXT", "b/more.txt", "a/LICENSE")
    assert scan_folder(tmp_path).left_out == {"(no ending)": 1, ".txt": 2}


def test_dotted_names_are_samples_of_their_own(tmp_path: Path) -> None:
    touch(tmp_path, "a/patient.1.jpeg", "a/patient.2.jpeg", "b/1.jpg")
    assert [name for name, *_ in found(tmp_path)] == ["a/patient.1.jpeg", "a/patient.2.jpeg", "b/1.jpg"]


def test_names_in_any_script_and_with_spaces_are_kept(tmp_path: Path) -> None:
    names = ["Käfer/größe 1.jpg", "ラーメン/丼🍜.png", "зебра/1.jpg"]
    assert [name for name, *_ in found(touch(tmp_path, *names))] == sorted(names)


def test_name_that_is_not_utf8_is_refused_by_its_bytes(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    os.close(os.open(os.fsencode(tmp_path) + b"/a/caf\xe9.jpg", os.O_CREAT))
    assert r"the name b'a/caf\xe9.jpg' below" in refusal(tmp_path)


def test_linked_folder_is_followed(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "1.jpg")
    touch(tmp_path / "root", "a/0.jpg", "b/1.jpg")
    (tmp_path / "root/a/more").symlink_to(tmp_path / "elsewhere")
    assert "a/more/1.jpg" in [name for name, *_ in found(tmp_path / "root")]


def test_class_folder_may_itself_be_a_link(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/1.jpg", "root/b/1.jpg")
    (tmp_path / "root/a").symlink_to(tmp_path / "elsewhere")
    assert ("a/1.jpg", "a", None) in found(tmp_path / "root")


def test_loop_of_links_is_walked_once(tmp_path: Path) -> None:
    touch(tmp_path, "a/in/1.jpg", "b/1.jpg")
    (tmp_path / "a/in/loop").symlink_to(tmp_path / "a")
    assert [name for name, *_ in found(tmp_path)] == ["a/in/1.jpg", "b/1.jpg"]


def test_link_back_to_the_whole_folder_does_not_bring_other_classes_in(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "a/up").symlink_to("..")
    assert found(tmp_path) == [("a/1.jpg", "a", None), ("b/1.jpg", "b", None)]


def test_folder_that_cannot_be_listed_stops_the_scan(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    here = os.open(tmp_path / "a", os.O_RDONLY)
    for _ in range(20):  # deeper than PATH_MAX, which is how a folder becomes unlistable even for root
        os.mkdir("d" * 250, dir_fd=here)
        deeper = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    with pytest.raises(OSError, match="File name too long"):
        scan_folder(tmp_path)


def test_weights_come_from_samples_csv_and_are_1_elsewhere(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg")
    (tmp_path / "samples.csv").write_text("path,weight\na/1.jpg,0.5\nb/1.jpg,2\n")
    weights = {source.name: source.weight for source in scan_folder(tmp_path).sources}
    assert weights == {"a/1.jpg": 0.5, "a/2.jpg": 1.0, "b/1.jpg": 2.0}


def test_samples_csv_may_come_from_a_spreadsheet(tmp_path: Path) -> None:
    touch(tmp_path, "a/1, left.jpg", "b/1.jpg")
    (tmp_path / "samples.csv").write_bytes('weight,path\r\n0.5,"a/1, left.jpg"\r\n'.encode("utf-8-sig"))
    assert scan_folder(tmp_path).sources[0].weight == 0.5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,weight\nc/9.jpg,1\n", "samples.csv names 'c/9.jpg', which is not a picture below"),
        ("path,weight\na/1.jpg,heavy\n", "the weight of 'a/1.jpg' must be a number above 0, got 'heavy'"),
        ("path,weight\na/1.jpg,0\n", "must be a number above 0, got '0'"),
        ("path,weight\na/1.jpg,-1\n", "must be a number above 0, got '-1'"),
        ("path,weight\na/1.jpg,nan\n", "must be a number above 0, got 'nan'"),
        ("path,weight\na/1.jpg,inf\n", "must be a number above 0, got 'inf'"),
        ("path,weight\na/1.jpg,\n", "must be a number above 0, got ''"),
        ("path,weight\na/1.jpg\n", "must be a number above 0, got 'None'"),
        ("path;weight\na/1.jpg;1\n", "must have the columns path,weight, got path;weight"),
        ("file,weight\na/1.jpg,1\n", "must have the columns path,weight, got file,weight"),
        ("path,weight,note\na/1.jpg,1,x\n", "must have the columns path,weight, got path,weight,note"),
        ("", "must have the columns path,weight, got "),
    ],
)
def test_wrong_samples_csv_is_refused_by_its_fact(tmp_path: Path, text: str, says: str) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "samples.csv").write_text(text)
    assert says in refusal(tmp_path)


def test_samples_csv_in_another_encoding_is_refused_with_the_remedy(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "samples.csv").write_bytes("path,weight\nKäfer/1.jpg,1\n".encode("latin-1"))
    assert refusal(tmp_path).endswith("samples.csv is not UTF-8 text (byte 13); save it again as 'CSV UTF-8'")


def test_missing_folder_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere") == (
        f"no such folder: {tmp_path}/nowhere; give a folder that holds one subfolder of pictures per class"
    )


def test_file_in_place_of_the_folder_is_no_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.zip")
    assert refusal(tmp_path / "a.zip").startswith(f"no such folder: {tmp_path}/a.zip")


def test_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    assert re.search(
        r"holds no pictures in class folders \(looked for .*\.jpg.*\); put the pictures", refusal(tmp_path)
    )


def test_one_class_only_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "empty/readme.txt")
    assert "has one class only, 'a'; a classifier needs two or more class folders" in refusal(tmp_path)


def test_mixture_of_splits_and_classes_names_the_odd_folder(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "extra/1.jpg")
    assert f"{tmp_path} mixes split folders with 'extra'; either every subfolder is a split" in refusal(tmp_path)


def test_class_absent_from_train_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/c/1.jpg")
    assert refusal(tmp_path) == "class 'c' has no pictures in train, so it cannot be learnt; rename or move its folder"


def test_splits_without_train_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "val/a/1.jpg", "test/b/1.jpg")
    assert "has split folders but no pictures in train; put the training pictures there" in refusal(tmp_path)


def test_scan_does_not_open_pictures(tmp_path: Path) -> None:
    touch(tmp_path, "a/zero.jpg", "b/1.jpg")
    Image.new("RGB", (1, 1)).save(tmp_path / "b/2.png")
    assert len(found(tmp_path)) == 3
