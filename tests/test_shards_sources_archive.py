from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import subprocess
import tarfile
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.errors import ShardError, UsageError
from shards.sources.alike import find_alike
from shards.sources.endings import ENDINGS, IGNORED
from shards.sources.find import find_sources
from shards.sources.list_form import ListForm
from shards.sources.model import SourceList

Tree = dict[str, bytes]
SPLIT_TREE: Tree = {
    "train/cat/a 1.jpg": b"one",
    "train/Käfer/größe.2.JPEG": bytes(3000),
    "val/cat/丼🍜.png": os.urandom(2000),
    "test/Käfer/x.webp": b"",
}
FLAT_TREE: Tree = {"a/1.jpg": b"1" * 1024, "b/deep/2.jpg": b"22", "b/2.jpg": b"333"}


def write_zip(path: Path, tree: Tree) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in tree.items():
            file.writestr(name, data, zipfile.ZIP_STORED if name.endswith("g") else zipfile.ZIP_DEFLATED)
    return path


def tar_bytes(tree: Tree, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as tar:
        for name, data in tree.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def write_zst(path: Path, data: bytes) -> None:
    with pa.output_stream(str(path), compression="zstd") as file:
        file.write(data)


def write_tar(path: Path, tree: Tree) -> Path:
    path.write_bytes(tar_bytes(tree))
    return path


def write_tar_gz(path: Path, tree: Tree) -> Path:
    path.write_bytes(gzip.compress(tar_bytes(tree)))
    return path


def write_tar_zst(path: Path, tree: Tree) -> Path:
    write_zst(path, tar_bytes(tree))
    return path


def write_tar_bz2(path: Path, tree: Tree) -> Path:
    path.write_bytes(bz2.compress(tar_bytes(tree)))
    return path


def write_tar_xz(path: Path, tree: Tree) -> Path:
    path.write_bytes(lzma.compress(tar_bytes(tree)))
    return path


COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
WRITERS: dict[str, Callable[[Path, Tree], Path]] = {
    "x.zip": write_zip,
    "X.ZIP": write_zip,
    "x.tar": write_tar,
    "x.tar.gz": write_tar_gz,
    "x.tgz": write_tar_gz,
    "x.tar.bz2": write_tar_bz2,
    "x.tar.xz": write_tar_xz,
    "x.tar.zst": write_tar_zst,
}
each_kind = pytest.mark.parametrize("kind", list(WRITERS))


def write(folder: Path, kind: str, tree: Tree) -> Path:
    return WRITERS[kind](folder / kind, tree)


def write_folder(root: Path, tree: Tree) -> Path:
    for name, data in tree.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def content(listed: SourceList) -> list[tuple[Any, ...]]:
    """Read all pictures, each by itself and all in order of storage, and return what is known of each."""
    passed = dict(listed.store.read_in_order(listed.sources))
    for source in listed.sources:
        assert listed.store.read(source) == passed[source]
    return [(s.name, s.labels, s.split, s.size, passed[s]) for s in listed.sources]


@each_kind
@pytest.mark.parametrize("tree", [SPLIT_TREE, FLAT_TREE], ids=["splits", "classes"])
def test_archive_holds_what_the_folder_holds(tmp_path: Path, kind: str, tree: Tree) -> None:
    folder = write_folder(tmp_path / "folder", tree)
    archived = find_sources(write(tmp_path, kind, tree))
    assert content(archived) == content(find_sources(folder))
    assert [row[-1] for row in content(archived)] == [tree[name] for name in sorted(tree)]
    assert archived.notes == []


@each_kind
def test_archive_of_pictures_without_labels_gives_all_of_them(tmp_path: Path, kind: str) -> None:
    listed = find_sources(write(tmp_path, kind, {"b.jpg": b"1", "x/y/a.png": b"2", "x/c.txt": b"3"}), unlabelled=True)
    assert content(listed) == [("b.jpg", (), "all", 1, b"1"), ("x/y/a.png", (), "all", 1, b"2")]
    assert listed.left_out == {".txt": 1}


@each_kind
@pytest.mark.parametrize("top", ["chest xray", "./a/b", "/abs", "../up"])
@pytest.mark.parametrize("tree", [SPLIT_TREE, FLAT_TREE], ids=["splits", "classes"])
def test_folder_around_everything_is_no_class(tmp_path: Path, kind: str, top: str, tree: Tree) -> None:
    wrapped = {f"{top}/{name}": data for name, data in tree.items()}
    wrapped |= {"__MACOSX/train/cat/._a.jpg": b"", "README.jpg.txt": b""}
    listed = find_sources(write(tmp_path, kind, wrapped))
    plain = find_sources(write_folder(tmp_path / "folder", tree))
    prefix = top.removeprefix("./") + "/"
    assert content(listed) == [(prefix + name, *rest) for name, *rest in content(plain)]


@each_kind
def test_one_split_folder_alone_is_no_wrapper(tmp_path: Path, kind: str) -> None:
    listed = find_sources(write(tmp_path, kind, {"train/a/1.jpg": b"", "train/b/1.jpg": b""}))
    assert [(source.labels, source.split) for source in listed.sources] == [(("a",), "train"), (("b",), "train")]


@each_kind
def test_hidden_and_system_files_of_archives_are_ignored(tmp_path: Path, kind: str) -> None:
    junk = ["a/.DS_Store", "a/._1.jpg", "b/Thumbs.db", "a/.cache/2.jpg", "__MACOSX/a/3.jpg"]
    listed = find_sources(write(tmp_path, kind, FLAT_TREE | dict.fromkeys(junk, b"x") | {"a/notes.TXT": b""}))
    assert [source.name for source in listed.sources] == sorted(FLAT_TREE)
    assert (listed.left_out, listed.classes) == ({".txt": 1}, ["a", "b"])


@each_kind
def test_loose_pictures_of_archives_are_counted(tmp_path: Path, kind: str) -> None:
    listed = find_sources(write(tmp_path, kind, FLAT_TREE | {"loose.jpg": b""}))
    assert len(listed.sources) == 3
    assert "1 picture lies in no class folder of" in listed.notes[0]


@each_kind
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_pictures_of_one_name_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind.lower().endswith("zip"):
        with zipfile.ZipFile(path, "w") as file:
            for name in ("a/1.jpg", "b/1.jpg", "a/1.jpg"):
                file.writestr(name, b"x")
    else:
        double = tar_bytes({"a/1.jpg": b"x", "b/1.jpg": b"y"}).rstrip(b"\0")
        double += bytes(-len(double) % 512) + tar_bytes({"a/1.jpg": b"z"})
        plain = tmp_path / "plain"
        plain.write_bytes(double)
        if ending := next((ending for ending in COMPRESS if kind.endswith(ending)), None):
            path.write_bytes(COMPRESS[ending](double))
        elif kind.endswith("zst"):
            write_zst(path, double)
        else:
            plain.rename(path)
    with pytest.raises(ShardError, match=r"holds 'a/1\.jpg' twice, so it is unknown which one is meant; write"):
        find_sources(path)


@each_kind
def test_archive_cut_anywhere_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind, SPLIT_TREE)
    data = path.read_bytes()
    # One empty block ends a tar; what follows it is padding.
    end = -(-len(data.rstrip(b"\0")) // 512) * 512 + 512 if kind == "x.tar" else len(data)
    for cut in [*range(0, end, 97), end - 1]:
        path.write_bytes(data[:cut])
        with pytest.raises(ShardError, match=rf"/{kind} .*; fetch or write it again"):
            find_sources(path)


def test_tar_cut_between_two_files_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", FLAT_TREE)
    path.write_bytes(path.read_bytes()[: 512 + 1024])
    with pytest.raises(ShardError, match=r"breaks off at byte 1,536 without the mark that ends a tar"):
        find_sources(path)


@pytest.mark.parametrize("kind", ["x.tar", "x.tar.gz", "x.tar.zst"])
def test_damaged_header_inside_a_tar_is_not_taken_for_its_end(tmp_path: Path, kind: str) -> None:
    data = bytearray(tar_bytes(FLAT_TREE | {"a/9.jpg": b"", "b/9.jpg": b""}))
    data[512 + 1024 + 20] ^= 0xFF
    path = tmp_path / kind
    if kind.endswith("zst"):
        write_zst(path, bytes(data))
    else:
        path.write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
    with pytest.raises(ShardError, match="without the mark that ends a tar"):
        find_sources(path)


def test_flipped_byte_anywhere_in_a_gzipped_tar_is_refused(tmp_path: Path) -> None:
    path = write_tar_gz(tmp_path / "x.tar.gz", SPLIT_TREE)
    data = path.read_bytes()
    for at in range(10, len(data), 101):  # behind gzip's header, whose time and system nobody checks
        path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        with pytest.raises(ShardError, match=r"/x\.tar\.gz .*; fetch or write it again"):
            find_sources(path)


def test_flipped_byte_in_a_zip_is_found_when_the_picture_is_read(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a/1.jpg": b"plain bytes", "b/1.webp": b"deflated" * 9})
    data = bytearray(path.read_bytes())
    for picture in (b"plain bytes", data[data.index(b"b/1.webp") + 8 :][:12]):
        data[data.index(picture) + 3] ^= 0x55
    path.write_bytes(data)
    listed = find_sources(path)
    for source in listed.sources:
        with pytest.raises(ShardError, match=rf"x\.zip: {source.name} is damaged \(.*\); fetch or write the archive"):
            listed.store.read(source)


@each_kind
def test_file_that_is_no_archive_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / kind).write_bytes(b"this is no archive" * 100)
    with pytest.raises(ShardError, match="is damaged or not what its ending indicates"):
        find_sources(tmp_path / kind)


@each_kind
def test_archive_without_pictures_says_what_was_looked_for(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UsageError, match="holds no pictures in class folders"):
        find_sources(write(tmp_path, kind, {"a/notes.txt": b""}))


def zip_with_raw_names(path: Path, names: list[bytes], contents: dict[int, bytes] | None = None) -> Path:
    """Write a zip whose names are bytes of no stated encoding, as programs for Chinese Windows do."""
    stand_ins = [b"@%02d" % number + b"_" * (len(name) - 3) for number, name in enumerate(names)]
    with zipfile.ZipFile(path, "w") as file:
        for number, stand_in in enumerate(stand_ins):
            file.writestr(stand_in.decode(), (contents or {}).get(number, stand_in))
    data = path.read_bytes()
    for stand_in, name in zip(stand_ins, names, strict=True):
        head, _, tail = data.rpartition(stand_in)  # the directory's copy
        data = head + name + tail
        at = data.index(stand_in)  # the local header's
        data = data[:at] + name + data[at + len(name) :]
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("encoding", ["gbk", "utf-8"])
def test_chinese_names_of_a_zip_that_does_not_say_its_encoding_are_right(tmp_path: Path, encoding: str) -> None:
    names = ["正常/图片 1.jpg", "肺炎/图片 2.jpg"]
    listed = find_sources(zip_with_raw_names(tmp_path / "x.zip", [name.encode(encoding) for name in names]))
    assert [source.name for source in listed.sources] == names
    assert listed.classes == ["正常", "肺炎"]
    assert listed.notes == [
        f"{tmp_path}/x.zip does not declare how its names are encoded; they were read as {encoding}, which is a guess: "
        "'正常/图片 1.jpg'. If that is wrong, give the encoding with --names (cp850, cp437, gbk, shift_jis)"
    ]
    assert [data[:3] for *_, data in content(listed)] == [b"@00", b"@01"]


def test_names_of_an_old_zip_in_neither_encoding_are_read_as_the_format_says(tmp_path: Path) -> None:
    listed = find_sources(zip_with_raw_names(tmp_path / "x.zip", ["bär/1.jpg".encode("cp437"), b"ok\xff/2.jpg"]))
    assert "bär/1.jpg" in [source.name for source in listed.sources]


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("cp850", ["Käfer/Øre 1.jpg", "Mücke/ð.jpg"]),
        ("cp866", ["жук/снимок.jpg", "муха/1.jpg"]),
        ("shift_jis", ["甲虫/写真.jpg", "ハエ/1.jpg"]),
        ("big5", ["甲蟲/圖片.jpg", "蒼蠅/1.jpg"]),
        ("gbk", ["甲蟲/圖片.jpg", "蒼蠅/1.jpg"]),
    ],
)
@pytest.mark.parametrize("kind", ["x.zip", "x.tar"])
def test_names_of_an_archive_are_read_in_the_encoding_that_the_user_says(
    tmp_path: Path, encoding: str, names: list[str], kind: str
) -> None:
    if kind == "x.zip":
        path = zip_with_raw_names(tmp_path / kind, [name.encode(encoding) for name in names])
    else:
        path = tmp_path / kind
        path.write_bytes(tar_bytes(dict.fromkeys(names, b"@"), format=tarfile.GNU_FORMAT, encoding=encoding))
    listed = find_sources(path, names=encoding.upper())
    assert ([source.name for source in listed.sources], listed.notes) == (sorted(names), [])
    guessed = find_sources(path, alike="keep")
    assert "which is a guess: '" in guessed.notes[0]  # whatever was guessed
    assert "give the encoding with --names" in guessed.notes[0]


def test_western_names_are_not_taken_for_chinese_ones(tmp_path: Path) -> None:
    names = ["Käfer/größe.jpg", "Mücke/1.jpg"]
    listed = find_sources(zip_with_raw_names(tmp_path / "x.zip", [name.encode("cp437") for name in names]))
    assert [source.name for source in listed.sources] == names
    assert "read as cp437, which is a guess" in listed.notes[0]


def test_names_that_a_zip_marks_as_utf_8_are_not_read_otherwise(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"Käfer/1.jpg": b"1", "b/1.jpg": b"2"})
    assert find_sources(path, names="cp850").classes == ["Käfer", "b"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "cp9999",
            "--names: there is no text encoding 'cp9999'; there are cp850, cp437, gbk, shift_jis and others",
        ),
        ("zlib", "--names: there is no text encoding 'zlib'"),
        ("", "--names: there is no text encoding ''"),
        (
            "shift_jis",
            r"x.zip has the name b'ok\xff/2.jpg', which is invalid in shift_jis; give another encoding, or leave",
        ),
    ],
)
def test_wrong_encoding_is_refused_by_its_fact(tmp_path: Path, name: str, says: str) -> None:
    path = zip_with_raw_names(tmp_path / "x.zip", ["bär/1.jpg".encode("cp437"), b"ok\xff/2.jpg"])
    with pytest.raises(UsageError) as caught:
        find_sources(path, names=name)
    assert says in str(caught.value)
    assert len(find_sources(path, names="cp850").sources) == 2  # the remedies
    assert len(find_sources(path).sources) == 2


def test_encoding_of_names_is_refused_where_there_is_no_archive(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", FLAT_TREE)
    with pytest.raises(UsageError, match=f"--names sets how the names in an archive are encoded, but {tmp_path}/in is"):
        find_sources(tmp_path / "in", names="cp850")


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_chinese_names_of_a_tar_are_right_in_any_encoding(tmp_path: Path, form: int) -> None:
    tree = {"正常/图片.jpg": b"1", "肺炎/图片.jpg": b"2"}
    encoding = "gbk" if form == tarfile.GNU_FORMAT else "utf-8"
    (tmp_path / "x.tar").write_bytes(tar_bytes(tree, format=form, encoding=encoding))
    listed = find_sources(tmp_path / "x.tar")
    assert {name: data for name, *_, data in content(listed)} == tree
    assert bool(listed.notes) == (encoding == "gbk")


@pytest.mark.parametrize("system", [0, 3, 10, 19])
def test_backslashes_of_a_zip_are_folders_whatever_wrote_it(tmp_path: Path, system: int) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for name in ("a\\", "a\\1.jpg", "b\\1.jpg", "c\\"):
            info = zipfile.ZipInfo(name)
            info.create_system = system
            file.writestr(info, name if name.endswith("g") else b"")
    listed = find_sources(tmp_path / "x.zip", drop_empty=True)
    assert [source.name for source in listed.sources] == ["a/1.jpg", "b/1.jpg"]
    assert [data for *_, data in content(listed)] == [b"a\\1.jpg", b"b\\1.jpg"]
    assert listed.notes == ["the class folder 'c' is empty: left out"]


def test_backslashes_behind_a_slash_are_folders_where_windows_wrote_them_alone(tmp_path: Path) -> None:
    for system, names in ((0, ["in/a/1.jpg", "in/b/1.jpg"]), (3, ["in/a\\1.jpg", "in/b\\1.jpg"])):
        with zipfile.ZipFile(tmp_path / f"{system}.zip", "w") as file:
            for name in ("in/a\\1.jpg", "in/b\\1.jpg"):
                info = zipfile.ZipInfo(name)
                info.create_system = system
                file.writestr(info, name)
        listed = find_sources(tmp_path / f"{system}.zip", unlabelled=True)
        assert [source.name for source in listed.sources] == names


@pytest.mark.parametrize("kind", ["x.tar", "x.tar.gz"])
def test_backslashes_of_a_tar_are_folders(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind, {"a\\1.jpg": b"1", "b\\1.jpg": b"2"})
    assert [row[0] for row in content(find_sources(path))] == ["a/1.jpg", "b/1.jpg"]


LISTED: Tree = {
    "in/labels.csv": "path,label,split\n1.jpg,Käfer,train\nimg/2.jpg,b,train\n./img/../3.jpg,b,test\n".encode(),
    "in/1.jpg": b"one",
    "in/img/2.jpg": b"two" * 400,
    "in/3.jpg": b"three",
    "in/unlisted.jpg": b"four",
}


@each_kind
def test_list_in_an_archive_is_read_with_its_pictures(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind, LISTED)
    listed = find_sources(path / "in/labels.csv")
    assert content(listed) == [
        ("in/1.jpg", ("Käfer",), "train", 3, b"one"),
        ("in/3.jpg", ("b",), "test", 5, b"three"),
        ("in/img/2.jpg", ("b",), "train", 1200, b"two" * 400),
    ]
    assert (listed.classes, listed.root, listed.notes) == (["Käfer", "b"], path, [])
    unlabelled = find_sources(path / "in/labels.csv", unlabelled=True)
    assert {source.split for source in unlabelled.sources} == {"all"}


def test_list_in_an_archive_says_what_a_list_in_the_folder_says(tmp_path: Path) -> None:
    """Rows without a file, and the options that find them: what is suggested works."""
    tree = {"in/labels.csv": b"path,label\n1,a\n2,b\n", "in/img/1.jpg": b"1", "in/img/2.jpg": b"2"}
    folder, path = write_folder(tmp_path / "f", tree), write_zip(tmp_path / "x.zip", tree)
    for root in (folder, path):
        with pytest.raises(UsageError) as caught:
            find_sources(root / "in/labels.csv")
        assert str(caught.value) == (
            f"{root}/in/labels.csv row 2: there is no file '1' (nor those of 1 more rows); paths are absolute or "
            f"relative to {root}/in; give --base {root}/in/img --ending .jpg for '{root}/in/img/1.jpg'"
        )
    for base in (path / "in/img", Path("in/img")):
        listed = find_sources(path / "in/labels.csv", form=ListForm(base=base, ending=".jpg"))
        assert [source.name for source in listed.sources] == ["in/img/1.jpg", "in/img/2.jpg"]


def test_parquet_list_in_an_archive_is_read(tmp_path: Path) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"path": ["1.jpg", "2.jpg"], "label": ["a", "b"]}), sink)
    path = write_zip(tmp_path / "x.zip", {"1.jpg": b"1", "2.jpg": b"2", "list.parquet": sink.getvalue()})
    assert find_sources(path / "list.parquet").classes == ["a", "b"]


def test_names_of_an_archive_with_a_list_are_read_in_the_encoding_that_the_user_says(tmp_path: Path) -> None:
    names = ["Käfer 1.jpg", "Mücke.jpg", "Liste für alle.csv"]
    rows = "path,label\nKäfer 1.jpg,a\nMücke.jpg,b\n".encode()
    path = zip_with_raw_names(tmp_path / "x.zip", [name.encode("cp850") for name in names], {2: rows})
    listed = find_sources(path / names[2], names="cp850")
    assert ([source.name for source in listed.sources], listed.notes) == (names[:2], [])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("other.csv", "there is no list 'other.csv' in {path}; its lists are in/labels.csv"),
        ("in/labels.parquet", "there is no list 'in/labels.parquet' in {path}; its lists are in/labels.csv"),
    ],
)
def test_list_that_is_not_in_the_archive_is_answered_with_those_that_are(tmp_path: Path, name: str, says: str) -> None:
    path = write_zip(tmp_path / "x.zip", LISTED)
    with pytest.raises(UsageError) as caught:
        find_sources(path / name)
    assert str(caught.value) == says.format(path=path)


def test_list_in_a_folder_whose_name_ends_as_an_archive_is_one_on_disk(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "x.zip", LISTED)
    assert find_sources(folder / "in/labels.csv").sources[0].name == "./img/../3.jpg"


def test_picture_that_is_listed_and_twice_in_the_archive_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", LISTED)
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("in/1.jpg", b"other")
    with pytest.raises(ShardError, match=r"holds 'in/1\.jpg' twice"):
        find_sources(path / "in/labels.csv")


def test_encrypted_zip_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", FLAT_TREE)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(ShardError, match=r"'a/1\.jpg' is encrypted; unpack the archive with its password and pack the"):
        find_sources(path)


def test_zip_of_a_rare_method_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_LZMA) as file:
        file.writestr("a/1.jpg", b"x")
    with pytest.raises(
        ShardError, match=r"is compressed by method 14, but only 0 \(stored\) and 8 \(deflate\) are sup"
    ):
        find_sources(tmp_path / "x.zip")


def test_zip_that_unpacks_to_more_than_it_says_is_not_unpacked_whole(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a/1.webp": bytes(50_000_000), "b/1.jpg": b""})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(data)
    listed = find_sources(path)
    tracemalloc.start()
    with pytest.raises(ShardError, match="size or CRC differs from the archive's directory"):
        listed.store.read(listed.sources[0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000


@pytest.mark.parametrize("kind", ["x.tar", "x.tar.gz"])
def test_links_in_tars_are_left_out_by_name(tmp_path: Path, kind: str) -> None:
    write_folder(tmp_path / "in", FLAT_TREE)
    (tmp_path / "in/a/soft.jpg").symlink_to("1.jpg")
    os.link(tmp_path / "in/b/2.jpg", tmp_path / "in/b/hard.jpg")
    subprocess.run(["tar", "caf", tmp_path / kind, "--sort=name", "-C", tmp_path / "in", "."], check=True)
    listed = find_sources(tmp_path / kind)
    assert len(listed.sources) == 3
    assert listed.notes == [
        f"2 links are left out of {tmp_path / kind} (the first is 'a/soft.jpg'): links in archives are not followed; "
        "write the archive with the files themselves (tar --dereference --hard-dereference)"
    ]


def test_links_in_zips_are_left_out_by_name(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", FLAT_TREE)
    with zipfile.ZipFile(path, "a") as file:
        link = zipfile.ZipInfo("a/soft.jpg")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "1.jpg")
    listed = find_sources(path)
    assert len(listed.sources) == 3
    assert "1 link is left out" in listed.notes[0]


def test_archive_of_the_tar_program_is_read(tmp_path: Path) -> None:
    long = {f"{'ä' * 60}/{'ö' * 60}/{'ü' * 60}.jpg": b"long name"}
    write_folder(tmp_path / "in", SPLIT_TREE | {f"train/{name}": data for name, data in long.items()})
    subprocess.run(["tar", "cf", tmp_path / "x.tar", "-C", tmp_path / "in", "."], check=True)
    assert content(find_sources(tmp_path / "x.tar")) == content(find_sources(tmp_path / "in"))


@each_kind
def test_nothing_is_unpacked_to_disk(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, kind, SPLIT_TREE)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no such folder"))
    monkeypatch.chdir(tmp_path)
    content(find_sources(path))
    assert [file.name for file in tmp_path.iterdir()] == [kind]


@each_kind
def test_store_works_in_another_process(tmp_path: Path, kind: str) -> None:
    listed = find_sources(write(tmp_path, kind, SPLIT_TREE))
    before = content(listed)
    assert content(pickle.loads(pickle.dumps(listed))) == before


@pytest.mark.parametrize("kind", ["x.zip", "x.tar"])
def test_threads_share_a_store(tmp_path: Path, kind: str) -> None:
    tree = {f"{label}/{number}.webp": bytes([number]) * 5000 for label in "ab" for number in range(50)}
    listed = find_sources(write(tmp_path, kind, tree))
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(listed.store.read, listed.sources * 5))
    assert read == [tree[source.name] for source in listed.sources] * 5


@pytest.mark.parametrize(
    ("kind", "affordable"), [("x.zip", True), ("x.tar", True), ("x.tgz", False), ("x.tar.xz", False)]
)
def test_store_says_whether_it_reads_out_of_order(tmp_path: Path, kind: str, affordable: bool) -> None:
    assert find_sources(write(tmp_path, kind, FLAT_TREE)).store.random_access is affordable


@pytest.mark.parametrize(
    "changed",
    [
        tar_bytes({"a/1.jpg": b"other"}),
        tar_bytes(FLAT_TREE | {"b/2.jpg": b"4444"}),
        tar_bytes(FLAT_TREE)[: 512 + 1000],
    ],
    ids=["pictures are gone", "one has another size", "the tar ends inside one"],
)
def test_compressed_tar_that_changed_after_listing_is_refused(tmp_path: Path, changed: bytes) -> None:
    path = write_tar_gz(tmp_path / "x.tar.gz", FLAT_TREE)
    listed = find_sources(path)
    path.write_bytes(gzip.compress(changed))
    with pytest.raises(ShardError, match=r"it has changed since|has 1,000 of 1,024 bytes"):
        list(listed.store.read_in_order(listed.sources))


def test_tar_cut_after_listing_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", FLAT_TREE)
    listed = find_sources(path)
    os.truncate(path, 1000)
    with pytest.raises(ShardError, match=r"ends inside a/1\.jpg \(488 of 1,024 bytes at 512\)"):
        listed.store.read(listed.sources[0])


def test_stamp_changes_with_the_content(tmp_path: Path) -> None:
    for kind in ("x.zip", "x.tar"):
        before = find_sources(write(tmp_path, kind, FLAT_TREE)).sources[0].stamp
        path = write(tmp_path, kind, FLAT_TREE | {"a/1.jpg": b"2" * 1024})
        os.utime(path, ns=(1, 1))
        assert find_sources(path).sources[0].stamp != before


def test_weights_beside_pictures_in_an_archive_are_not_forgotten_silently(tmp_path: Path) -> None:
    listed = find_sources(write_zip(tmp_path / "x.zip", FLAT_TREE | {"samples.csv": b"path,weight\na/1.jpg,2\n"}))
    assert "samples.csv in" in listed.notes[0]


TEXT = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=12)
NAMES = TEXT.filter(lambda text: not text.startswith(".") and text.lower() not in IGNORED)
CLASSES = NAMES.filter(lambda text: text.lower() not in ("train", "val", "valid", "validation", "test"))
FILES = st.builds(
    lambda folders, stem, ending: "/".join([*folders, stem + ending]),
    st.lists(NAMES, max_size=2),
    NAMES.filter(lambda text: text != "."),
    st.sampled_from(sorted(ENDINGS - {".dcm"})).map(lambda ending: ending if len(ending) % 2 else ending.upper()),
)
PLACES = st.one_of(
    st.just([""]), st.just(["train/"]), st.just(["train/", "val/"]), st.just(["train/", "Test/", "valid/"])
)
SPLIT_OF = {"": None, "train/": "train", "val/": "val", "Test/": "test", "valid/": "val"}


@st.composite
def trees(draw: st.DrawFn) -> dict[str, tuple[str, str | None, bytes]]:
    """Return label, split and bytes by name, with every class in train."""
    classes = draw(st.lists(CLASSES, min_size=2, max_size=4, unique=True))
    places = draw(PLACES)
    tree = {}
    for place in places:
        for label in classes:
            files = draw(st.lists(FILES, min_size=int(place == places[0]), max_size=3))
            for file in files:
                tree[f"{place}{label}/{file}"] = (label, SPLIT_OF[place], draw(st.binary(max_size=600)))
    return tree


def fits_on_disk(tree: dict[str, Any]) -> bool:
    """Say whether no file is a folder of another and no name is too long."""
    folders = {name[:at] for name in tree for at, letter in enumerate(name) if letter == "/"}
    return not folders & set(tree) and all(len(part.encode()) < 250 for name in tree for part in name.split("/"))


def has_one_meaning(tree: dict[str, tuple[str, str | None, bytes]]) -> bool:
    """Say whether no two folders lie in every class: `pack` asks what those are."""
    inside: dict[str, set[str]] = {}
    for name, (label, split, _) in tree.items():
        parts = name.split("/")[1 if split is None else 2 : -1]
        inside.setdefault(label, set()).update(part.casefold() for part in parts[:1])
    return len(set.intersection(*inside.values())) < 2


def has_no_twins(tree: dict[str, tuple[str, str | None, bytes]]) -> bool:
    """Say whether no two classes look alike, which `pack` refuses."""
    return not find_alike({label for label, _, _ in tree.values()})


@given(trees().filter(fits_on_disk).filter(has_one_meaning).filter(has_no_twins))
def test_any_tree_comes_back_exactly_from_folder_and_archives(tree: dict[str, tuple[str, str | None, bytes]]) -> None:
    expected = [(name, (label,), split, len(data), data) for name, (label, split, data) in sorted(tree.items())]
    files = {name: data for name, (_, _, data) in tree.items()}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        assert content(find_sources(write_folder(root / "in", files))) == expected
        for kind in ("x.zip", "x.tar", "x.tgz", "x.tar.zst"):
            assert content(find_sources(write(root, kind, files))) == expected
