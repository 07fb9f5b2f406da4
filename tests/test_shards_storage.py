from __future__ import annotations

import multiprocessing
import os
import pickle
from pathlib import Path
from urllib.parse import quote

import pytest

from shards.errors import UsageError
from shards.files.temporary import is_leftover
from shards.storage.storage import FolderStorage, Readable, Storage, open_readable, open_storage

CONTENT = bytes(range(250)) * 40_000


@pytest.fixture(params=["folder", "s3", "gcs"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return open_storage(tmp_path / "dataset")
    return open_storage(request.getfixturevalue(request.param).format(path=f"storage/{tmp_path.name}"))


def test_place_that_does_not_exist_is_empty(storage: Storage) -> None:
    assert storage.sizes() == {}


def test_what_was_written_is_read_and_listed_with_its_size(storage: Storage) -> None:
    storage.write("dataset.json", b"{}")
    storage.write("train/数据 1.tar", b"x" * 12_000_000)
    assert storage.sizes() == {"dataset.json": 2, "train/数据 1.tar": 12_000_000}
    assert storage.read("train/数据 1.tar") == b"x" * 12_000_000


@pytest.mark.parametrize("scheme", ["s3", "gcs"])
@pytest.mark.parametrize("name", ["肺 scans", "a#b", "50%", "a+b&c=(d)"])
def test_prefix_may_have_any_letters(scheme: str, name: str, request: pytest.FixtureRequest) -> None:
    """As a plain prefix has them; encoded it is the same place."""
    location = request.getfixturevalue(scheme)
    storage = open_storage(location.format(path=f"letters/{name}/in"))
    storage.write("page", name.encode())
    assert storage.sizes() == {"page": len(name.encode())}
    assert "/in" in str(storage)
    encoded = location.format(path=f"letters/{quote(name)}/in")
    assert open_readable(encoded).read("page") == name.encode()
    above = open_storage(location.format(path="letters"))
    assert above.sizes()[f"{name}/in/page"] == len(name.encode())


def test_later_content_takes_the_place_of_the_earlier(storage: Storage) -> None:
    storage.write("page", b"first")
    storage.write("page", b"second")
    assert storage.read("page") == b"second"


def write_half(storage: Storage, name: str) -> None:
    with storage.writing(name) as file:
        file.write(b"x" * 9_000_000)
        raise RuntimeError("half way")


def test_file_whose_writing_failed_never_appears(storage: Storage) -> None:
    with pytest.raises(RuntimeError, match="half way"):
        write_half(storage, "train/0.tar")
    assert storage.sizes() == {}


def test_failed_writing_leaves_the_earlier_content(storage: Storage) -> None:
    storage.write("page", b"first")
    with pytest.raises(RuntimeError):
        write_half(storage, "page")
    assert storage.read("page") == b"first"


def test_deleted_files_are_gone_and_others_stay(storage: Storage) -> None:
    storage.write("a/1", b"1")
    storage.write("a/2", b"2")
    storage.delete(["a/1", "a/never-there"])
    assert storage.sizes() == {"a/2": 1}


def test_folders_that_deleting_left_empty_are_gone(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    storage.write("a/b/1", b"1")
    storage.write("a/2", b"2")
    storage.delete(["a/b/1"])
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "2"]


def test_missing_file_is_an_os_error(storage: Storage) -> None:
    with pytest.raises(OSError, match="never-there"):
        storage.read("never-there")


def test_storage_travels_to_other_processes(storage: Storage) -> None:
    storage.write("page", b"content")
    assert pickle.loads(pickle.dumps(storage)).read("page") == b"content"


@pytest.mark.parametrize("target", ["http://host/data", "ftp://host/data", "file:///data"])
def test_other_schemes_are_refused_in_words(target: str) -> None:
    with pytest.raises(UsageError, match=r"written to a folder, s3:// or gs://, not"):
        open_storage(target)


@pytest.fixture(params=["folder", "s3", "gcs", "http"])
def readable(request: pytest.FixtureRequest, tmp_path: Path) -> Readable:
    """A place with one file, `train/数据 1.tar` of 10,000,000 bytes."""
    location = str(tmp_path)
    if request.param != "folder":
        scheme = "s3" if request.param == "http" else request.param
        location = request.getfixturevalue(scheme).format(path=f"reading/{tmp_path.name}")
    open_storage(location).write("train/数据 1.tar", CONTENT)
    open_storage(location).write("empty", b"")
    if request.param == "http":
        location = request.getfixturevalue("http_shards").format(path=f"reading/{tmp_path.name}")
    return open_readable(location)


def test_every_place_is_read_whole_and_by_ranges(readable: Readable) -> None:
    assert (readable.read("train/数据 1.tar"), readable.size("train/数据 1.tar")) == (CONTENT, len(CONTENT))
    assert (readable.read("empty"), readable.size("empty")) == (b"", 0)
    file = readable.open("train/数据 1.tar")
    assert file.size == len(CONTENT)
    for offset, length in [(0, 100), (100, 5_000_000), (9_000_000, 100), (0, 7), (9_999_990, 100), (20, 1)]:
        assert file.read_at(offset, length) == CONTENT[offset : offset + length]
    file.close()


def test_reading_what_is_missing_names_the_whole_location(readable: Readable) -> None:
    for read in (readable.read, readable.size, readable.open):
        with pytest.raises(FileNotFoundError) as caught:
            read("never/there")
        assert caught.value.filename == f"{readable}/never/there"


def test_reader_travels_to_other_processes(readable: Readable) -> None:
    assert pickle.loads(pickle.dumps(readable)).read("train/数据 1.tar") == CONTENT


@pytest.mark.parametrize("scheme", ["s3", "gcs"])
def test_file_with_the_name_of_a_compressed_one_is_read_as_it_is(request: pytest.FixtureRequest, scheme: str) -> None:
    location = request.getfixturevalue(scheme).format(path="compressed")
    open_storage(location).write("x.gz", b"not compressed")
    assert open_readable(location).read("x.gz") == b"not compressed"


@pytest.mark.parametrize("location", ["ftp://host/data", "file:///data", "pipe:curl://x"])
def test_other_schemes_are_not_read(location: str) -> None:
    with pytest.raises(
        UsageError, match=r"is not supported; name a path of this machine, s3://, gs:// or http\(s\)://"
    ):
        open_readable(location)


@pytest.mark.parametrize("location", ["http://", "https:///data"])
def test_url_without_a_host_is_refused(location: str) -> None:
    with pytest.raises(UsageError, match="names no host"):
        open_readable(location)


def test_keys_in_a_uri_are_not_shown() -> None:
    for location in ("s3://key:secret@bucket/a?region=us-east-1", "https://key:secret@host/a?signature=secret"):
        assert "secret" not in str(open_readable(location))


def test_second_writer_of_this_machine_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "dataset")
    with storage.locked(), pytest.raises(UsageError, match="another process is packing into"), storage.locked():
        pass
    with storage.locked():
        pass


def _lock_and_die(root: Path) -> None:
    storage = FolderStorage(root)
    with storage.locked():
        os._exit(1)


def test_lock_of_a_killed_writer_is_free(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_lock_and_die, args=(tmp_path / "dataset",))
    process.start()
    process.join()
    with FolderStorage(tmp_path / "dataset").locked():
        pass


def test_leftovers_are_known_by_their_names(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    with storage.writing("train/0.tar"):
        names = list(storage.sizes())
    assert [is_leftover(name) for name in names] == [True]
    assert not is_leftover("train/0.tar")
    assert not is_leftover("movie.mkv.partial")


def test_unreachable_store_is_an_os_error() -> None:
    from pyarrow.fs import S3FileSystem

    from shards.storage.storage import ObjectStorage

    dead = S3FileSystem(
        endpoint_override="127.0.0.1:1", scheme="http", access_key="a", secret_key="b", connect_timeout=1
    )
    with pytest.raises(OSError, match=r"127\.0\.0\.1|[Cc]onnect"):
        ObjectStorage(dead, "bucket/x", "s3://bucket/x").sizes()
