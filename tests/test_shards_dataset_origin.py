"""origin.json: by which commands a dataset was packed; the dataset is the same with it and without."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from in_process import command

from shards.dataset.dataset import open_dataset
from shards.dataset.origin import ORIGIN_NAME, Origin, PackCommand, read_origin, record_command
from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.sources.find import find_sources
from shards.storage.storage import FolderStorage, open_readable, open_storage

FIRST = PackCommand(source="a", options=["--seed", "1"])


def read(folder: Path) -> list[tuple[str, list[str], int]]:
    return [(each.source, each.options, each.update) for each in read_origin(FolderStorage(folder)).commands]


def packed(*words: str | Path) -> None:
    done = command("pack", *words)
    assert done.returncode == 0, done.stderr


def test_command_is_recorded_as_it_was_given_without_what_changes_no_byte(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("blue B\ngreen G\nred R\n")
    options = ["--class-names", str(tmp_path / "names.txt"), "--group-regex", r"(\d)\.", "--range=-5,300"]
    more = ["--drop-duplicates", "--allow-leaks", "--seed", "3", "--shard-bytes", "40KB"]
    packed(os.path.relpath(pictures), tmp_path / "out", "--json", *more, *options)
    ((source, words, update),) = read(tmp_path / "out")
    assert (source, update) == (os.path.relpath(pictures), 0)
    assert sorted(words) == sorted([*options, *more])
    assert words[words.index("--seed") + 1] == "3"


def test_dataset_is_the_same_with_and_without_its_record(dataset_path: Path, pictures: Path, tmp_path: Path) -> None:
    packed(pictures, tmp_path / "out", "--shard-bytes", "40000")
    assert not (dataset_path / ORIGIN_NAME).exists()  # a program packed it
    assert (tmp_path / "out" / ORIGIN_NAME).exists()
    assert (tmp_path / "out/dataset.json").read_bytes() == (dataset_path / "dataset.json").read_bytes()
    assert open_dataset(tmp_path / "out").fingerprint() == open_dataset(dataset_path).fingerprint()


def test_update_is_recorded_after_the_command_before_it_and_nothing_when_it_adds_nothing(
    pictures: Path, tmp_path: Path
) -> None:
    part, out = tmp_path / "part", tmp_path / "out"
    shutil.copytree(pictures, part)
    for path in part.glob("*/*/*.1.*"):
        path.unlink()
    packed(part, out)
    packed(pictures, out, "--update")
    recorded = [(str(part), [], 0), (str(pictures), [], 1)]
    assert read(out) == recorded
    packed(part, out, "--update")
    assert read(out) == recorded


def test_what_was_recorded_of_an_update_that_never_came_is_replaced(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    record_command(storage, 0, FIRST)
    for source in ("killed", "b"):
        record_command(storage, 1, PackCommand(source=source, options=[]))
    assert [each[0] for each in read(tmp_path)] == ["a", "b"]
    record_command(storage, 0, None)  # packed anew, by a program
    assert not (tmp_path / ORIGIN_NAME).exists()


@pytest.mark.parametrize("damage", ["{", '{"version": 2}', '{"version": 1, "commands": 3}'])
def test_damaged_record_is_as_none_and_is_replaced(damage: str, tmp_path: Path) -> None:
    (tmp_path / ORIGIN_NAME).write_text(damage)
    assert read_origin(FolderStorage(tmp_path)) == Origin()
    record_command(FolderStorage(tmp_path), 0, FIRST)
    assert read_origin(FolderStorage(tmp_path)).commands == [FIRST]


@pytest.mark.parametrize(("written", "shown"), [("s3", "s3"), ("s3", "http_shards"), ("gcs", "gcs")])
def test_record_is_read_where_the_dataset_lies(
    written: str, shown: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    where, there = (request.getfixturevalue(name).format(path=f"origin/{tmp_path.name}") for name in (written, shown))
    assert read_origin(open_readable(there)) == Origin()
    record_command(open_storage(where), 0, FIRST)
    assert read_origin(open_readable(there)).commands == [FIRST]


def test_source_whose_name_is_no_text_is_packed_and_recorded_with_escapes(pictures: Path, tmp_path: Path) -> None:
    source = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(pictures / "val", source / "train")
    packed(source, tmp_path / "out")
    assert json.loads((tmp_path / "out" / ORIGIN_NAME).read_text())["commands"][0]["source"].endswith("caf\\udce9")


def test_program_that_packs_over_the_rest_of_a_dataset_takes_its_record_away(pictures: Path, tmp_path: Path) -> None:
    packed(pictures, tmp_path / "out")
    (tmp_path / "out/dataset.json").unlink()
    (tmp_path / "out/.packing").mkdir()
    (tmp_path / "out/.packing/plan.json").write_text("{}")
    pack(find_sources(pictures), tmp_path / "out", PackOptions())
    assert read(tmp_path / "out") == []
