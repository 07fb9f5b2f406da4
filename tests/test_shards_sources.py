from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from shards.errors import UsageError
from shards.sources.endings import ENDINGS
from shards.sources.find import find_sources
from shards.sources.folder import list_pictures
from shards.sources.kinds import PACKED_KINDS


def touch(root: Path, *names: str) -> Path:
    """Make empty files; a scan lists pictures without reading them."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def found(root: Path) -> list[tuple[str | None, ...]]:
    return [(source.name, *source.labels, source.split) for source in find_sources(root).sources]


def refusal(root: Path) -> str:
    with pytest.raises(UsageError) as caught:
        find_sources(root)
    return str(caught.value)


def test_folders_are_classes(tmp_path: Path) -> None:
    touch(tmp_path, "dog/1.jpg", "cat/1.jpg")
    assert found(tmp_path) == [("cat/1.jpg", "cat", None), ("dog/1.jpg", "dog", None)]


def test_classes_are_sorted_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "b/1.jpg", "a/1.jpg", "C/1.jpg")
    assert find_sources(tmp_path).classes == ["C", "a", "b"]


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
    assert find_sources(tmp_path).classes == ["a", "b"]


def test_hidden_files_and_folders_and_system_files_are_ignored(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    touch(tmp_path, "a/.DS_Store", "a/._1.jpg", "a/Thumbs.db", "a/desktop.ini", "a/.cache/2.jpg", ".git/x/3.jpg")
    listed = find_sources(tmp_path)
    assert ([source.name for source in listed.sources], listed.left_out) == (["a/1.jpg", "b/1.jpg"], {})


@pytest.mark.parametrize("ending", sorted(ENDINGS))
def test_picture_endings_count_in_any_case(tmp_path: Path, ending: str) -> None:
    touch(tmp_path, f"a/lower{ending}", f"a/upper{ending.upper()}", "b/1.jpg")
    assert len(found(tmp_path)) == 3


def test_other_endings_are_counted_not_forgotten(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "a/notes.TXT", "b/more.txt", "a/LICENSE")
    assert find_sources(tmp_path).left_out == {"(no ending)": 1, ".txt": 2}


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
        find_sources(tmp_path)


def test_weights_come_from_samples_csv_and_are_1_elsewhere(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg")
    (tmp_path / "samples.csv").write_text("path,weight\na/1.jpg,0.5\nb/1.jpg,2\n")
    weights = {source.name: source.weight for source in find_sources(tmp_path).sources}
    assert weights == {"a/1.jpg": 0.5, "a/2.jpg": 1.0, "b/1.jpg": 2.0}


def test_samples_csv_may_come_from_a_spreadsheet(tmp_path: Path) -> None:
    touch(tmp_path, "a/1, left.jpg", "b/1.jpg")
    (tmp_path / "samples.csv").write_bytes('weight,path\r\n0.5,"a/1, left.jpg"\r\n'.encode("utf-8-sig"))
    assert find_sources(tmp_path).sources[0].weight == 0.5


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
        ("path,weight\na/1.jpg\n", "samples.csv row 2 has fewer values than the 2 columns"),
        ("file,weight\na/1.jpg,1\n", "must have the columns path and weight, group or both, got file,weight"),
        (
            "path,weight,note\na/1.jpg,1,x\n",
            "must have the columns path and weight, group or both, got path,weight,note",
        ),
        ("path\na/1.jpg\n", "must have the columns path and weight, group or both, got path"),
        ("path,weight\na/1.jpg,1\na/1.jpg,1\n", "samples.csv has two rows for 'a/1.jpg'; keep one of them"),
        ("path,weight\na/1.jpg,1,5\n", "samples.csv row 2 has more values than the 2 columns"),
        ("", "must have the columns path and weight, group or both, got "),
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


def test_file_of_another_kind_is_refused_with_the_kinds_there_are(tmp_path: Path) -> None:
    touch(tmp_path, "a.rar")
    said = refusal(tmp_path / "a.rar")
    assert said.startswith(f"{tmp_path}/a.rar is neither a folder nor a file that can be packed (.zip, ")
    named = said[said.index("packed (") + 8 : -1].split(", ")
    assert sorted(named) == sorted(ending for kind in PACKED_KINDS for ending in kind.endings)


def test_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    assert re.search(
        r"holds no pictures in class folders \(looked for .*\.jpg.*\); put the pictures", refusal(tmp_path)
    )


def test_one_class_only_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "empty/readme.txt")
    assert "has only one class, 'a'; a classifier needs two or more classes" in refusal(tmp_path)


def test_folder_around_the_real_one_is_named_as_the_remedy(tmp_path: Path) -> None:
    touch(tmp_path, "xray/train/a/1.jpg", "xray/val/a/2.jpg")
    assert refusal(tmp_path) == (
        f"{tmp_path} has only one class, 'xray'; if the folders in it are the classes or splits (train, val), "
        f"give {tmp_path}/xray"
    )


def test_mixture_of_splits_and_classes_names_the_odd_folder(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "extra/1.jpg")
    assert f"{tmp_path} mixes split folders with 'extra'; either every subfolder is a split" in refusal(tmp_path)


def test_class_absent_from_train_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/c/1.jpg")
    assert refusal(tmp_path) == (
        "class 'c' has no pictures in train, so it cannot be learnt; move pictures of it there, or correct its name"
    )


def test_splits_without_train_are_taken_for_pictures_to_evaluate_on(tmp_path: Path) -> None:
    touch(tmp_path, "val/a/1.jpg", "test/b/1.jpg")
    listed = find_sources(tmp_path)
    assert ([source.split for source in listed.sources], listed.classes) == (["test", "val"], ["a", "b"])
    assert listed.notes == [
        f"{tmp_path} gives test and val without train: the dataset can be used to evaluate a model, "
        "but not to train one"
    ]


def test_scan_does_not_open_pictures(tmp_path: Path) -> None:
    touch(tmp_path, "a/zero.jpg", "b/1.jpg")
    Image.new("RGB", (1, 1)).save(tmp_path / "b/2.png")
    assert len(found(tmp_path)) == 3


def test_sizes_and_times_of_files_are_known_without_opening_them(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "a/1.jpg").write_bytes(bytes(7))
    os.utime(tmp_path / "a/1.jpg", ns=(5, 1_234_567_891))
    source = find_sources(tmp_path).sources[0]
    assert (source.size, source.stamp) == (7, 1_234_567_891)


def test_store_hands_out_the_bytes_of_the_files(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/größe 1.jpg")
    (tmp_path / "b/größe 1.jpg").write_bytes(b"picture")
    listed = pickle.loads(pickle.dumps(find_sources(tmp_path)))
    assert [listed.store.read(source) for source in listed.sources] == [b"", b"picture"]


@pytest.mark.parametrize("loose", ["1.jpg", "train/1.jpg"])
def test_pictures_outside_class_folders_are_counted_with_the_remedy(tmp_path: Path, loose: str) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", loose)
    listed = find_sources(tmp_path)
    assert [source.name for source in listed.sources] == ["train/a/1.jpg", "train/b/1.jpg"]
    assert listed.notes == [
        f"1 picture lies in no class folder of {tmp_path} and so in no shard (the first is '{loose}'); "
        "move them into the folder of their class"
    ]


def test_nothing_but_loose_pictures_is_refused_with_their_number(tmp_path: Path) -> None:
    touch(tmp_path, "2.jpg", "1.jpg")
    assert "; 2 are outside class folders, for example '1.jpg'; put the pictures of each class" in refusal(tmp_path)


def test_link_to_nothing_is_left_out_by_name_and_does_not_stop_the_scan(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "a/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "a/gone.txt").symlink_to(tmp_path / "nowhere.txt")
    os.mkfifo(tmp_path / "b/pipe.png")
    listed = find_sources(tmp_path)
    assert [source.name for source in listed.sources] == ["a/1.jpg", "b/1.jpg"]
    assert listed.notes == [
        "2 names are left out, because they lead to no file ('a/gone.jpg': No such file or directory); "
        "restore what the links point to, or remove them"
    ]


def test_folder_that_two_classes_link_to_belongs_to_both(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/1.jpg", "in/a/0.jpg", "in/b/0.jpg")
    for label in "ab":
        (tmp_path / "in" / label / "more").symlink_to(tmp_path / "elsewhere")
    assert [name for name, *_ in found(tmp_path / "in")] == ["a/0.jpg", "a/more/1.jpg", "b/0.jpg", "b/more/1.jpg"]


def test_unlabelled_takes_every_picture_wherever_it_lies(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "train/a/2.jpg", "odd/3.PNG", ".git/4.jpg", "odd/Thumbs.db", "odd/notes.txt")
    listed = find_sources(tmp_path, unlabelled=True)
    assert [(source.name, source.labels, source.split) for source in listed.sources] == [
        ("1.jpg", (), "all"),
        ("odd/3.PNG", (), "all"),
        ("train/a/2.jpg", (), "all"),
    ]
    assert (listed.classes, listed.left_out) == ([], {".txt": 1})


def test_unlabelled_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a/notes.txt")
    with pytest.raises(UsageError, match="holds no pictures"):
        find_sources(tmp_path, unlabelled=True)


def test_groups_come_from_samples_csv(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg")
    (tmp_path / "samples.csv").write_text("path,group,weight\na/1.jpg,p1,2\nb/1.jpg,,3\n")
    rows = [(source.group, source.weight) for source in find_sources(tmp_path).sources]
    assert rows == [("p1", 2.0), ("", 1.0), ("", 3.0)]


@pytest.mark.parametrize("pattern", [r"(person\d+)", r"person\d+"])
def test_group_is_the_first_capture_or_the_whole_match(tmp_path: Path, pattern: str) -> None:
    touch(tmp_path, "a/person1_v.jpg", "a/person1_b.jpg", "b/person22.jpg")
    groups = [source.group for source in find_sources(tmp_path, group_regex=pattern).sources]
    assert groups == ["person1", "person1", "person22"]


def test_pictures_without_a_group_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a/person1.jpg", "a/other.jpg", "b/more.jpg")
    listed = find_sources(tmp_path, group_regex=r"(person\d+)")
    assert [source.group for source in listed.sources] == ["", "person1", ""]
    assert listed.notes == [
        "--group-regex finds no group in 2 of 3 pictures (the first is 'a/other.jpg'); each of them is split on its own"
    ]


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("(person", r"--group-regex '\(person' is not a regular expression \(missing \)"),
        ("patient", "--group-regex 'patient' finds a group in no picture; the first name is 'a/1.jpg'"),
        ("(x*)", "finds a group in no picture"),
    ],
)
def test_group_regex_that_groups_nothing_is_refused(tmp_path: Path, pattern: str, says: str) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    with pytest.raises(UsageError, match=says):
        find_sources(tmp_path, group_regex=pattern)


def test_dicom_file_is_grouped_by_its_patient(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/broken.dcm")
    header = FileDataset("", Dataset(), preamble=bytes(128))
    header.PatientID = "patient 7"
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for name in ("a/2.dcm", "b/3.DCM"):
        header.save_as(tmp_path / name)
    groups = {source.name: source.group for source in find_sources(tmp_path).sources}
    assert groups == {"a/1.jpg": "", "a/2.dcm": "patient 7", "b/3.DCM": "patient 7", "b/broken.dcm": ""}


def test_list_pictures_takes_files_as_given_and_folders_whole(tmp_path: Path) -> None:
    touch(tmp_path, "odd.txt", "in/b/2.JPG", "in/1.png", "in/notes.txt")
    assert list_pictures([tmp_path / "odd.txt", tmp_path / "in"]) == [
        tmp_path / "odd.txt",
        tmp_path / "in/1.png",
        tmp_path / "in/b/2.JPG",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n.txt", "0 正常肺部\n1 viral pneumonia, 病毒\n"),
        ("n.txt", "0\t正常肺部\n1\tviral pneumonia, 病毒\n"),
        ("n.csv", "0,正常肺部\n1,viral pneumonia, 病毒\n\n"),
        ("n.json", '{"0": "正常肺部", "1": "viral pneumonia, 病毒"}'),
        ("n.yaml", "0: 正常肺部\n1: viral pneumonia, 病毒\n"),
    ],
)
def test_classes_are_shown_by_the_names_of_a_file_in_any_form(tmp_path: Path, name: str, text: str) -> None:
    touch(tmp_path, "in/0/1.jpg", "in/1/1.jpg")
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    listed = find_sources(tmp_path / "in", class_names=tmp_path / name)
    assert (listed.classes, listed.display_names) == (["0", "1"], ["正常肺部", "viral pneumonia, 病毒"])


def test_classes_settle_which_separator_a_file_of_names_uses(tmp_path: Path) -> None:
    touch(tmp_path, "in/n01440764/1.jpg", "in/n01443537/1.jpg")
    (tmp_path / "n.txt").write_text("n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\n")
    names = find_sources(tmp_path / "in", class_names=tmp_path / "n.txt").display_names
    assert names == ["tench, Tinca tinca", "goldfish, Carassius auratus"]


def test_class_that_yaml_takes_for_false_keeps_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "in/no/1.jpg", "in/yes/1.jpg")
    (tmp_path / "n.yml").write_text("yes: ja\nno: nein\n")
    assert find_sources(tmp_path / "in", class_names=tmp_path / "n.yml").display_names == ["nein", "ja"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("n.txt", "0 a\n", "has no name for class '1'"),
        ("n.txt", "0 a\n1 b\n2 c\n", "names a class '2' that the pictures do not have; they have 0, 1"),
        ("n.txt", "0 a\n1 b\n0 c\n", "names class '0' twice"),
        ("n.json", '{"0": "a", "0": "c", "1": "b"}', "names class '0' twice"),
        ("n.json", '["a", "b"]', "is not one mapping of class to name"),
        ("n.json", '{"0": {"name": "a"}, "1": "b"}', "is not one mapping of class to name"),
        ("n.json", '{"0": "a"', "cannot be read"),
        ("n.yaml", "0: [a", "cannot be read"),
        ("n.yaml", "- a\n- b\n", "is not one mapping of class to name"),
        ("n.yaml", "0: ''\n1: b\n", "has an empty name for class '0'"),
        ("n.txt", "0\n1 b\n", "'0' is not a class and its name"),
        ("n.txt", "", "'' is not a class and its name"),
    ],
)
def test_class_names_that_do_not_fit_are_refused(tmp_path: Path, name: str, text: str, says: str) -> None:
    touch(tmp_path, "in/0/1.jpg", "in/1/1.jpg")
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=says):
        find_sources(tmp_path / "in", class_names=tmp_path / name)


def test_missing_file_of_class_names_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "in/0/1.jpg", "in/1/1.jpg")
    with pytest.raises(UsageError, match=r"--class-names: no such file: .*n\.txt"):
        find_sources(tmp_path / "in", class_names=tmp_path / "n.txt")
