"""A folder that takes the place of another: old or new, whole, whenever the process dies."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from small_disk import mount_small

from shards.files import atomic
from shards.files.atomic import exchange_names, replace_folder, write_json
from shards.files.temporary import clear_leftovers

OLD, NEW = {"a": "old", "b": "old", "only/old": "old"}, {"a": "new", "b": "new", "only/new": "new"}
STEPS = ("open", "os.", "shutil.")
"""Audit events of Python at which a process meets the file system."""


def fill(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def read(folder: Path) -> dict[str, str] | None:
    if not folder.exists():
        return None
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def replace_and_die(folder: Path, steps: int) -> int:
    """Replace a folder in a process that is killed right before its next step but `steps`; return its exit code."""
    process = multiprocessing.get_context("fork").Process(target=_replace_and_die, args=(folder, steps))
    process.start()
    process.join()
    assert process.exitcode in (0, 9)
    return process.exitcode


def _replace_and_die(folder: Path, steps: int) -> None:
    left = steps

    def count(event: str, _: object) -> None:
        nonlocal left
        if event.startswith(STEPS):
            if left == 0:
                os._exit(9)
            left -= 1

    sys.addaudithook(count)
    with replace_folder(folder) as temporary:
        fill(temporary, NEW)
    os._exit(0)


@pytest.fixture(params=["exchange", "two renames"])
def exchanges(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the system can exchange two names, as it is here, or cannot, as one whose C library lacks the call."""
    if request.param == "two renames":
        monkeypatch.setattr(atomic, "_renameat2", None)
    return bool(request.param == "exchange")


def test_folder_is_the_old_one_or_the_new_one_whole_at_whatever_step_the_process_is_killed(
    tmp_path: Path, exchanges: bool
) -> None:
    seen, steps, code = [], 0, 9
    while code == 9:
        top = tmp_path / str(steps)
        fill(top / "out", OLD)
        code = replace_and_die(top / "out", steps)
        seen.append(read(top / "out"))
        if exchanges:
            assert seen[-1] in (OLD, NEW)
        if seen[-1] is None:  # between the two renames
            clear_leftovers(top)
            assert read(top / "out") == OLD
        with replace_folder(top / "out") as temporary:
            assert os.listdir(top) == ["out", temporary.name] or os.listdir(top) == [temporary.name, "out"]
            assert read(top / "out") == (seen[-1] or OLD)
            fill(temporary, {"a": "newest"})
        assert (os.listdir(top), read(top / "out")) == (["out"], {"a": "newest"})
        steps += 1
    assert seen[0] == OLD
    assert seen[-1] == NEW
    assert seen.count(None) == (0 if exchanges else 1)
    assert seen.count(NEW) > 2  # killed while it removed the old one, too


def test_old_folder_stays_where_the_block_fails(tmp_path: Path, exchanges: bool) -> None:
    fill(tmp_path / "out", OLD)
    with pytest.raises(FileExistsError), replace_folder(tmp_path / "out") as temporary:
        temporary.mkdir()
    assert (os.listdir(tmp_path), read(tmp_path / "out")) == (["out"], OLD)


def test_folder_that_is_there_is_an_error_where_it_must_not_be_replaced(tmp_path: Path) -> None:
    fill(tmp_path / "out", OLD)
    with pytest.raises(OSError, match="not empty"), replace_folder(tmp_path / "out", replaces=False) as temporary:
        fill(temporary, NEW)
    assert (os.listdir(tmp_path), read(tmp_path / "out")) == (["out"], OLD)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_file_or_link_is_never_taken_for_a_folder_to_replace(kind: str, tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", OLD)
    (tmp_path / "out").write_text("old") if kind == "file" else (tmp_path / "out").symlink_to("elsewhere")
    with pytest.raises(NotADirectoryError), replace_folder(tmp_path / "out") as temporary:
        fill(temporary, NEW)
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "out"]
    assert read(tmp_path / "elsewhere") == OLD


def test_name_that_is_not_there_cannot_be_exchanged(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(FileNotFoundError, match="b"):
        exchange_names(tmp_path / "a", tmp_path / "b")


def test_names_of_two_file_systems_cannot_be_exchanged(tmp_path: Path) -> None:
    with mount_small(tmp_path / "disk", "size=2m") as disk:
        (disk.folder / "a").mkdir()
        (tmp_path / "b").mkdir()
        with pytest.raises(OSError, match="cross-device"):
            exchange_names(disk.folder / "a", tmp_path / "b")


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None], "ü": {}}, [], "text", {"many": [[0, 1]] * 70_000}])
def test_json_is_written_piece_by_piece_as_it_is_at_once(value: Any, tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", value)
    assert (tmp_path / "a.json").read_text() == json.dumps(value, indent=2, ensure_ascii=False) + "\n"


@pytest.mark.slow
def test_json_of_many_numbers_is_never_held_as_text(tmp_path: Path) -> None:
    value = [[0] * 1000] * 2000  # one list over and over, which is 14 MB of text
    tracemalloc.start()
    write_json(tmp_path / "a.json", value)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "a.json").stat().st_size > 13e6
    assert peak < 6e6


def test_json_with_a_number_that_other_readers_refuse_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", [1])
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", [0] * 100_000 + [float("nan")])
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == [1]
