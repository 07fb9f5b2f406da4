"""Class names that look alike, and class folders that hold no picture: named, refused, settled as asked."""

from __future__ import annotations

import tarfile
import unicodedata
import zipfile
from pathlib import Path

import pytest
from in_process import command
from test_shards_sources import refusal, touch

from shards.errors import UsageError
from shards.pictures.decode import decode
from shards.sources.alike import find_alike
from shards.sources.find import find_sources
from shards.sources.folder import list_pictures
from shards.sources.walk import walk_pictures

COMPOSED, APART = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")


@pytest.mark.parametrize(
    ("one", "other"),
    [(COMPOSED, APART), ("Cat", "cat"), ("cat", "cat "), ("cat", "cat\u200b"), ("1", "01"), ("1", "1.0"), ("ß", "SS")],
)
def test_classes_that_look_alike_are_refused_and_every_remedy_settles_them(
    one: str, other: str, tmp_path: Path
) -> None:
    touch(tmp_path, f"{one}/1.jpg", f"{other}/2.jpg", f"{other}/3.jpg", "dog/4.jpg")
    said = refusal(tmp_path)
    assert "look alike" in said
    joined = find_sources(tmp_path, alike="join")
    assert joined.classes == sorted([other, "dog"])  # most pictures have that one
    assert [source.labels[0] for source in joined.sources].count(other) == 3
    assert any("look alike and are joined to one" in note for note in joined.notes)
    assert len(find_sources(tmp_path, alike="keep").classes) == 3
    (tmp_path / other).rename(tmp_path / "other")
    assert len(find_sources(tmp_path).classes) == 3


@pytest.mark.parametrize("names", [["1", "l", "I"], ["1", "10", "1.01"], ["a b", "ab"], ["cat", "cats"], ["1a", "01a"]])
def test_names_that_differ_to_a_reader_are_not_alike(names: list[str]) -> None:
    assert find_alike(names) == []


def test_what_is_not_seen_of_a_name_is_written_out(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "cat\u200b/2.jpg", "dog/3.jpg")
    assert r"'cat' and 'cat\u200b' look alike" in refusal(tmp_path)


def test_spelling_that_differs_between_splits_is_called_alike_and_joined(tmp_path: Path) -> None:
    """And not a class without pictures in train."""
    touch(tmp_path, "train/Cat/1.jpg", "train/dog/1.jpg", "val/cat/1.jpg", "val/dog/2.jpg")
    assert "'Cat' and 'cat' look alike" in refusal(tmp_path)
    assert find_sources(tmp_path, alike="join").classes == ["Cat", "dog"]


def test_one_class_that_is_left_after_joining_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "Cat/1.jpg", "cat/2.jpg")
    with pytest.raises(UsageError, match="only one class once look-alike classes are joined; give --alike keep"):
        find_sources(tmp_path, alike="join")


def test_labels_of_a_list_are_looked_at_too_and_a_picture_keeps_one_of_two_spellings(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    (tmp_path / "list.csv").write_text("path,label\n1.jpg,cat;Cat\n2.jpg,dog\n3.jpg,cat;dog\n")
    with pytest.raises(UsageError, match="'Cat' and 'cat' look alike"):
        find_sources(tmp_path / "list.csv")
    joined = find_sources(tmp_path / "list.csv", alike="join")
    assert [source.labels for source in joined.sources] == [("cat",), ("dog",), ("cat", "dog")]


@pytest.mark.parametrize(("written", "stored"), [(COMPOSED, APART), (APART, COMPOSED)])
def test_path_of_a_list_is_found_in_the_other_form(written: str, stored: str, tmp_path: Path) -> None:
    touch(tmp_path, f"{stored}/1.jpg", "2.jpg")
    (tmp_path / "list.csv").write_text(f"path,label\n{written}/1.jpg,a\n2.jpg,b\n")
    assert [source.name for source in find_sources(tmp_path / "list.csv").sources] == ["2.jpg", f"{stored}/1.jpg"]


@pytest.mark.parametrize(("written", "stored"), [(COMPOSED, APART), (APART, COMPOSED)])
def test_row_of_samples_csv_is_found_in_the_other_form(written: str, stored: str, tmp_path: Path) -> None:
    touch(tmp_path, f"a/{stored}.jpg", "b/2.jpg")
    (tmp_path / "samples.csv").write_text(f"path,weight\na/{written}.jpg,3\n")
    assert [source.weight for source in find_sources(tmp_path).sources] == [3, 1]


# class folders without pictures


def test_empty_class_folder_is_named_and_refused_and_every_remedy_settles_it(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "c/inner").mkdir(parents=True)
    said = refusal(tmp_path)
    assert "the class folder 'c' is empty, so it would not be a class" in said
    dropped = find_sources(tmp_path, drop_empty=True)
    assert dropped.classes == ["a", "b"]
    assert any("the class folder 'c' is empty: left out" in note for note in dropped.notes)
    touch(tmp_path, "c/inner/1.jpg")
    assert find_sources(tmp_path).classes == ["a", "b", "c"]


def test_class_folder_of_pictures_in_a_format_that_is_not_read_is_named_with_what_it_holds(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "raw/1.CR2", "raw/2.cr2", "raw/notes.txt", "more/1.svg")
    said = refusal(tmp_path)
    assert "the class folder 'more' holds no picture that can be read, but 1 .svg (likewise 'raw')" in said
    notes = find_sources(tmp_path, drop_empty=True).notes
    assert any("'more' holds no picture that can be read" in note for note in notes)


def test_folder_of_other_files_beside_the_classes_is_no_class(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "annotations/1.xml", "annotations/2.xml", "docs/readme.txt")
    assert find_sources(tmp_path).classes == ["a", "b"]


def test_class_that_is_empty_in_one_split_alone_is_there(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg")
    (tmp_path / "val/b").mkdir()
    assert find_sources(tmp_path).classes == ["a", "b"]
    (tmp_path / "train/c").mkdir()
    assert "the class folder 'c' is empty" in refusal(tmp_path)


def write_archive(path: Path, source: Path) -> Path:
    names = sorted(source.rglob("*"))
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.write(name, name.relative_to(source))
    else:
        with tarfile.open(path, "w") as archive:
            for name in names:
                archive.add(name, name.relative_to(source), recursive=False)
    return path


@pytest.mark.parametrize("ending", [".zip", ".tar"])
def test_class_folders_of_archives_are_accounted_for_too(ending: str, tmp_path: Path) -> None:
    source = touch(tmp_path / "in", "a/1.jpg", "b/1.jpg", "raw/1.nef")
    (source / "empty").mkdir()
    path = write_archive(tmp_path / f"set{ending}", source)
    assert r"the class folder 'empty' is empty (likewise 'raw')" in refusal(path)
    assert find_sources(path, drop_empty=True).classes == ["a", "b"]


def test_options_of_the_commands_settle_both(tmp_path: Path) -> None:
    touch(tmp_path / "in", "Cat/1.jpg", "cat/2.jpg", "dog/3.jpg")
    (tmp_path / "in/none").mkdir()
    words = ["pack", tmp_path / "in", tmp_path / "out", "--audit", "none"]
    done = command(*words)
    assert (done.returncode, "look alike" in done.stderr) == (2, True)
    done = command(*words, "--alike", "join")
    assert (done.returncode, "give --drop-empty-classes to leave it out" in done.stderr) == (2, True)


# what systems leave behind


@pytest.mark.parametrize(
    "name",
    ["@eaDir", "$RECYCLE.BIN", "lost+found", "System Volume Information", "__MACOSX", "#recycle", ".Trashes", "@tmp"],
)
def test_folders_of_systems_are_no_classes_and_their_pictures_none(name: str, tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", f"{name}/1.jpg", f"a/{name}/1.jpg/SYNOPHOTO_THUMB_M.jpg")
    listed = find_sources(tmp_path)
    assert ([source.name for source in listed.sources], listed.notes) == (["a/1.jpg", "b/1.jpg"], [])
    assert list(walk_pictures(str(tmp_path))) == ["a/1.jpg", "b/1.jpg"]


def test_link_to_itself_is_noted_and_ends_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "cats").symlink_to("cats")
    (tmp_path / "a/2.jpg").symlink_to("2.jpg")
    (tmp_path / "b/gone").symlink_to(tmp_path / "nowhere")
    listed = find_sources(tmp_path)
    assert [source.name for source in listed.sources] == ["a/1.jpg", "b/1.jpg"]
    said = "3 names are left out, because they lead to no file ('a/2.jpg'"
    assert any(note.startswith(said) for note in listed.notes)
    assert "a/1.jpg" in list(walk_pictures(str(tmp_path)))
    assert len(list_pictures([tmp_path])) == 2


# DICOM whose names do not say so


def write_dicom(path: Path, patient: str) -> None:
    """Write a file of 2 x 2 pixels in elements without preamble, as some devices do."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
        value += b" " * (len(value) % 2)
        head = group.to_bytes(2, "little") + number.to_bytes(2, "little") + kind
        long = kind == b"OB"
        return head + (bytes(2) if long else b"") + len(value).to_bytes(4 if long else 2, "little") + value

    numbers = {0x02: 1, 0x10: 2, 0x11: 2, 0x100: 8, 0x101: 8, 0x102: 7, 0x103: 0}
    image = [element(0x28, number, b"US", value.to_bytes(2, "little")) for number, value in numbers.items()]
    image.insert(1, element(0x28, 4, b"CS", b"MONOCHROME2"))
    path.write_bytes(
        element(8, 5, b"CS", b"ISO_IR 100")
        + element(8, 0x60, b"CS", b"DX")
        + element(16, 0x20, b"LO", patient.encode())
        + b"".join(image)
        + element(0x7FE0, 0x10, b"OB", bytes([0, 100, 200, 255]))
    )


NAMES = ("a/IM-0001", "a/1.2.840.113619.7", "b/x.dicom", "b/y.IMA", "b/scan.img")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    for name in NAMES:
        write_dicom(tmp_path / "in" / name, f"patient {name[0]}")
    touch(tmp_path, "in/a/README", "in/b/notes.txt", "in/a/DICOMDIR")
    return tmp_path / "in"


def test_dicom_is_a_picture_whatever_its_ending_and_has_its_patient(scans: Path) -> None:
    pytest.importorskip("pydicom", reason="the extra `dicom` is not installed")
    listed = find_sources(scans)
    assert [(source.name, source.group) for source in listed.sources] == [
        (name, f"patient {name[0]}") for name in sorted(NAMES)
    ]
    assert listed.left_out == {"(no ending)": 1, ".txt": 1}
    assert sorted(walk_pictures(str(scans))) == sorted(NAMES)
    assert sorted(str(path.relative_to(scans)) for path in list_pictures([scans])) == sorted(NAMES)
    for source in listed.sources:
        assert decode(listed.store.read(source))[:, :, 0].tolist() == [[0, 100], [200, 255]]


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz"])
def test_dicom_in_archives_is_a_picture_whatever_its_ending(ending: str, scans: Path, tmp_path: Path) -> None:
    path = tmp_path / f"set{ending}"
    if ending == ".tar.gz":
        with tarfile.open(path, "w:gz") as archive:
            archive.add(scans, "set")
    else:
        write_archive(path, scans)
    listed = find_sources(path)
    assert [source.name.removeprefix("set/") for source in listed.sources] == sorted(NAMES)
    assert any("PatientIDs of DICOM files" in note for note in listed.notes)
    assert all(data[:2] == b"\x08\x00" for _, data in listed.store.read_in_order(listed.sources))
