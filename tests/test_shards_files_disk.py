"""What a disk refuses to take: one sentence with its values and a remedy, whatever wrote, and nothing half-written."""

from __future__ import annotations

import contextlib
import errno
import io
import multiprocessing
import os
import pickle
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from in_process import command
from pyarrow.fs import LocalFileSystem
from safetensors.torch import save_file
from small_disk import SmallDisk, mount_small

from shards.cli.ending import run_command
from shards.files.atomic import append_text, replace_folder, write_atomically, write_text
from shards.files.disk import DiskError, explain_disk
from shards.files.temporary import clear_leftovers, name_temporary, remove_leftovers
from shards.storage.storage import ObjectStorage

MIB = 1 << 20
Write = Callable[[Path], object]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with mount_small(tmp_path / "disk", "size=2m", "nr_inodes=64") as small:
        yield small


@contextlib.contextmanager
def limited_files(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size` bytes, as after `ulimit -f`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_plainly(path: Path) -> None:
    with write_atomically(path) as file:
        file.write(bytes(MIB))


def write_parquet(path: Path) -> None:
    numbers = np.random.default_rng(0).random(MIB // 8)
    with write_atomically(path) as file:
        pq.write_table(pa.table({"a": numbers}), file)


def write_tensors(path: Path) -> None:
    with replace_folder(path) as temporary:
        save_file({"a": torch.zeros(MIB // 4)}, temporary / "a")


def write_pickled(path: Path) -> None:
    with replace_folder(path) as temporary, open(temporary / "a", "wb") as file:
        torch.save({"a": torch.zeros(MIB // 4)}, file)


WRITERS = [write_plainly, write_parquet, write_tensors, write_pickled]


@pytest.mark.parametrize("write", WRITERS)
def test_full_disk_is_told_whatever_writes_and_nothing_is_left_and_with_room_it_is_written(
    write: Write, disk: SmallDisk
) -> None:
    disk.fill(left=MIB // 2)
    with pytest.raises(DiskError, match=r"/disk is full \(512\.0 KiB free[^)]*\); free some room there, or n"):
        write(disk.folder / "out")
    assert os.listdir(disk.folder) == ["ballast"]
    disk.remount("size=4m")  # its remedy
    write(disk.folder / "out")
    assert sorted(os.listdir(disk.folder)) == ["ballast", "out"]


@pytest.mark.parametrize("write", WRITERS)
def test_file_beyond_the_limit_is_told_with_the_limit(write: Write, tmp_path: Path) -> None:
    with (
        limited_files(MIB // 2),
        pytest.raises(DiskError, match=r"larger than `ulimit -f` allows \(512\.0 KiB allowed.*\); raise that limit$"),
    ):
        write(tmp_path / "out")
    assert os.listdir(tmp_path) == []
    write(tmp_path / "out")


@pytest.mark.parametrize("write", WRITERS)
def test_read_only_disk_is_told(write: Write, disk: SmallDisk) -> None:
    disk.remount("ro")
    with pytest.raises(DiskError, match=r"/disk is read-only; mount it so that it can be written, or name a "):
        write(disk.folder / "out")
    disk.remount("rw")
    write(disk.folder / "out")


@pytest.mark.parametrize("write", WRITERS)
def test_disk_that_takes_no_more_files_is_told_with_what_is_free(write: Write, disk: SmallDisk) -> None:
    for number in range(100):
        with contextlib.suppress(OSError):
            (disk.folder / str(number)).touch()
    with pytest.raises(DiskError, match=r"/disk has no room for one more file \(0 inodes free, 2\.0 MiB free\); "):
        write(disk.folder / "out")
    disk.remount("nr_inodes=200")
    write(disk.folder / "out")


def test_folder_that_runs_out_of_files_half_way_is_told_as_such(disk: SmallDisk) -> None:
    for number in range(100):
        with contextlib.suppress(OSError):
            (disk.folder / str(number)).touch()
    (disk.folder / "0").unlink()
    with pytest.raises(DiskError, match=r"no room for one more file \(0 inodes free, 2\.0 MiB free\)"):
        write_pickled(disk.folder / "out")


def test_old_content_stays_where_the_new_one_has_no_room(disk: SmallDisk) -> None:
    write_text(disk.folder / "out", "old")
    with pytest.raises(DiskError, match=r"more than 2\.0 MiB needed"), write_atomically(disk.folder / "out") as file:
        file.write(bytes(3 * MIB))
    assert (disk.folder / "out").read_text() == "old"
    (disk.folder / "folder").mkdir()
    (disk.folder / "folder" / "a").write_text("old")
    with pytest.raises(DiskError), replace_folder(disk.folder / "folder", "3.0 MiB") as temporary:
        (temporary / "a").write_bytes(bytes(3 * MIB))
    assert (disk.folder / "folder" / "a").read_text() == "old"


def test_line_that_does_not_fit_is_told_with_the_folder(disk: SmallDisk) -> None:
    disk.fill()
    with pytest.raises(DiskError, match=f"^the disk of {disk.folder} is full"):
        append_text(disk.folder / "rows", "x" * 10_000)


def test_disk_that_a_write_was_no_part_of_is_not_blamed() -> None:
    assert explain_disk(TimeoutError("the store did not answer (last cause: No space left on device)")) is None
    assert explain_disk(PermissionError(errno.EACCES, "denied", "/a")) is None


def test_cause_of_an_error_is_found() -> None:
    err = RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 576 vs 534")
    err.__context__ = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/tmp/a")
    assert str(explain_disk(err)) == (
        "your quota on the disk of /tmp is used up; free some of it, have it raised, or name a folder on another disk"
    )


def test_error_crosses_processes_whole() -> None:
    err = DiskError(errno.ENOSPC, "the disk is full", "free some", "take another", "/a")
    again = pickle.loads(pickle.dumps(err))
    assert (str(again), again.errno, again.filename) == (str(err), errno.ENOSPC, "/a")


def test_command_ends_with_the_sentence_of_a_library_that_has_errors_of_its_own(disk: SmallDisk) -> None:
    def main(_: list[str]) -> int:
        save_file({"a": torch.zeros(MIB)}, disk.folder / "a")
        return 0

    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        assert run_command(main, []) == 2
    assert errors.getvalue() == (
        "error: a disk is full; free some room there, or name a folder on another disk, and run the command again: "
        "it was stopped before its end\n"
    )


def test_pack_on_a_full_disk_is_one_sentence_and_the_same_command_packs_with_room(
    pictures: Path, disk: SmallDisk
) -> None:
    disk.fill(left=100_000)
    out = disk.folder / "shards"
    done = command("pack", pictures, out)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(f"error: the disk of {out}/")
    assert not list(out.rglob("*.partial*"))
    disk.remount("size=16m")
    assert command("pack", pictures, out).returncode == 0


def test_upload_for_which_the_folder_of_temporaries_has_no_room_names_it(
    disk: SmallDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(disk.folder))
    storage = ObjectStorage(LocalFileSystem(), str(tmp_path), "s3://bucket")
    with (
        pytest.raises(DiskError, match=f"^the disk of {disk.folder} is full .* room there, or set TMPDIR to"),
        storage.writing("a") as file,
    ):
        file.write(bytes(3 * MIB))
    assert not (tmp_path / "a").exists()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with storage.writing("a") as file:
        file.write(bytes(3 * MIB))


@pytest.mark.parametrize("left", [8_192, 140_000])
def test_full_folder_of_temporaries_ends_pack_and_audit_with_one_sentence_and_another_one_helps(
    pictures: Path, disk: SmallDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """8 KiB do not take the audit's thumbnails (a signal ended it), 140 KB not the whole audit of a finished set."""
    assert command("pack", pictures, tmp_path / "done").returncode == 0
    disk.fill(left)
    commands = [("pack", pictures, tmp_path / "done")]
    if left < 10_000:
        commands += [("pack", pictures, tmp_path / "new"), ("audit", pictures, "--out", tmp_path / "page")]
    for words in commands:
        monkeypatch.setattr(tempfile, "tempdir", str(disk.folder))
        done = command(*words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert done.stderr.startswith(f"error: the disk of {disk.folder}")
        assert (
            "free some room there, or set TMPDIR to a folder on another disk, and run the command again" in done.stderr
        )
        assert os.listdir(disk.folder) == ["ballast"]
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        assert command(*words).returncode == 0


# Leftovers


def leave(path: Path) -> Path:
    """Leave a temporary file as a killed process does, and return it."""
    process = multiprocessing.get_context("fork").Process(target=_write_and_die, args=(path,))
    process.start()
    process.join()
    (left,) = path.parent.glob(f"{path.name}.partial-*")
    return left


def _write_and_die(path: Path) -> None:
    with write_atomically(path) as file:
        file.write(b"half")
        file.flush()
        os._exit(1)


def test_leftover_of_a_dead_process_is_removed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    left = leave(tmp_path / "a" / "b" / "out")
    clear_leftovers(tmp_path)
    assert not left.exists()
    leave(tmp_path / "out")
    remove_leftovers(tmp_path / "out")
    assert os.listdir(tmp_path) == ["a"]


def test_leftover_that_bears_the_id_of_the_process_that_finds_it_is_removed(tmp_path: Path) -> None:
    """In a container that starts anew the same command often has the same id."""
    left = name_temporary(tmp_path / "out")
    left.mkdir()
    (left / "half").touch()
    clear_leftovers(tmp_path)
    assert not left.exists()


def test_temporary_of_a_living_process_stays(tmp_path: Path) -> None:
    with replace_folder(tmp_path / "folder"), write_atomically(tmp_path / "file"):
        clear_leftovers(tmp_path)
        remove_leftovers(tmp_path / "file")
        assert len(os.listdir(tmp_path)) == 2


@pytest.mark.parametrize("host", ["", "0123abcd-"])
def test_temporary_of_a_process_that_may_live_stays(host: str, tmp_path: Path) -> None:
    """By a name from before names had a host: of a process that is there; else of another machine, a moment ago."""
    left = tmp_path / f"out.partial-{host}{os.getppid()}"
    left.touch()
    clear_leftovers(tmp_path)
    assert left.exists()


def test_temporary_that_another_machine_has_not_touched_for_an_hour_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "out.partial-0123abcd-1"
    left.touch()
    os.utime(left, (time.time() - 3700,) * 2)
    clear_leftovers(tmp_path)
    assert not left.exists()


def test_leftover_of_a_release_before_is_removed(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=os._exit, args=(0,))
    process.start()
    process.join()
    left = tmp_path / f"000000000000072.partial-{process.pid}"
    left.mkdir()
    clear_leftovers(tmp_path)
    assert not left.exists()


def test_files_that_only_look_like_leftovers_stay(tmp_path: Path) -> None:
    for name in ("movie.partial", "movie.partial-a", "out.partial.jsonl", "movie.partial-7.mkv"):
        (tmp_path / name).touch()
    before = sorted(os.listdir(tmp_path))
    clear_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == before
    shutil.rmtree(tmp_path)
    clear_leftovers(tmp_path)
