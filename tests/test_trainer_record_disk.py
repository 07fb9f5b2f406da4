"""A disk that takes no more while a run is at work: one sentence, nothing half-written, the same weights in the end.

What each kind of file and of refusal gives is in test_shards_files_disk.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from runs import run_dir
from safetensors.torch import load_file
from small_disk import SmallDisk, mount_small
from test_shards_files_disk import limited_files

from shards.cli.ending import run_command
from shards.errors import UsageError
from shards.files.disk import DiskError
from trainer.bundle.make import make_bundle
from trainer.contract.bundle import Bundle
from trainer.evaluate.extras import try_extra
from trainer.evaluate.figures.figures import draw_training
from trainer.export.export import export_bundle
from trainer.loop.loop import train
from trainer.predict.__main__ import main as predict
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import Recipe
from trainer.record.ledger import read_ledger
from trainer.record.logbook import Numbers, read_metrics
from trainer.record.run_folder import SAVE_FILE, RunFolder
from trainer.record.snapshot import SnapshotStore
from trainer.run.__main__ import main
from trainer.run.job import run_rank
from trainer.weights.resolve import resolve_recipe

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

NUM_SAMPLES = 72
SNAPSHOT = 1_258_000
"""Bytes of a snapshot of the model below: 105 thousand parameters and statistics, and two moments of each."""


def name_options(data: Path, root: Path, *options: str) -> list[str]:
    fixed = ["smoke", f"data={data}", f"storage.root={root}", "name=run", "track.wandb=disabled", "launch=local"]
    return [*fixed, "model=timm/test_efficientnet", "epochs=2", "ledger=true", "snapshot.every_s=1000", *options]


def make_recipe(data: Path, root: Path, *options: str) -> Recipe:
    recipe, *words = name_options(data, root, *options)
    recipe = resolve_recipe(load_recipe(recipe, words))
    run_dir(recipe).mkdir(parents=True, exist_ok=True)
    return recipe


def train_quietly(recipe: Recipe) -> None:
    assert train(recipe, RunFolder.of(recipe), single_rank(), lambda _: None) == "finished"


def final_weights(recipe: Recipe) -> bytes:
    folder = max((run_dir(recipe) / "snapshots").iterdir())
    tensors = load_file(folder / "model.safetensors")
    return b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors))


@pytest.fixture(scope="module")
def straight(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of a run of two epochs that has room."""
    recipe = make_recipe(dataset_path, tmp_path_factory.mktemp("straight"))
    train_quietly(recipe)
    return final_weights(recipe)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with mount_small(tmp_path / "disk", "size=12m") as small:
        yield small


def train_until_full(recipe: Recipe, disk: SmallDisk, left: int) -> str:
    """Train; the disk fills when the first epoch is saved. Return the sentence that ends it."""

    def fill(_: Numbers) -> None:
        while not list(run_dir(recipe).glob("snapshots/*/state.json")):
            time.sleep(0.005)
        disk.fill(left)

    with pytest.raises(UsageError) as caught:
        train(recipe, RunFolder.of(recipe), single_rank(), fill)
    return str(caught.value)


def test_disk_that_fills_ends_the_run_with_where_it_stands_and_with_room_the_same_command_resumes(
    dataset_path: Path, disk: SmallDisk, straight: bytes, tmp_path: Path
) -> None:
    recipe = make_recipe(dataset_path, disk.folder)
    sentence = train_until_full(recipe, disk, left=SNAPSHOT // 2)
    assert re.fullmatch(
        rf"the disk of {run_dir(recipe)}/snapshots is full \(\d+\.\d KiB free, more than 1\.2 MiB needed\); the run "
        rf"stopped after {2 * NUM_SAMPLES} samples, its last snapshot is at {NUM_SAMPLES}\. Free some room there, or "
        rf"move {run_dir(recipe)} to another disk and set storage\.root to its new parent folder: the same command "
        "then resumes from that snapshot",
        sentence,
    )
    assert not list(disk.folder.rglob("*.partial*"))
    moved = make_recipe(dataset_path, tmp_path / "elsewhere")  # one remedy
    shutil.copytree(run_dir(recipe), run_dir(moved), dirs_exist_ok=True)
    train_quietly(moved)
    assert final_weights(moved) == straight
    disk.remount("size=24m")  # the other
    train_quietly(recipe)
    assert final_weights(recipe) == straight
    assert len(read_ledger(run_dir(recipe) / "ledger")) == 2 * NUM_SAMPLES
    assert [row["epoch"] for row in read_metrics(run_dir(recipe))] == [1, 2]


def test_disk_without_a_byte_ends_the_run_at_the_first_file_and_the_same_command_resumes(
    dataset_path: Path, disk: SmallDisk, straight: bytes
) -> None:
    recipe = make_recipe(dataset_path, disk.folder, "track.every_steps=1", "track.tensorboard=true")
    sentence = train_until_full(recipe, disk, left=0)
    assert re.match(rf"the disk of {run_dir(recipe)}\S* is full \(0 bytes free", sentence)
    assert f"the run stopped after {NUM_SAMPLES} samples" in sentence
    disk.empty()
    train_quietly(recipe)
    assert final_weights(recipe) == straight


def test_what_the_writer_of_a_snapshot_meets_ends_the_run_in_the_middle_of_the_epoch(
    dataset_path: Path, tmp_path: Path
) -> None:
    """The first step saves; no other snapshot is due before the end of the epoch, 36 steps on."""
    recipe = make_recipe(dataset_path, tmp_path, "batch_size_global=2", "epochs=1")
    (run_dir(recipe) / SAVE_FILE).touch()
    with limited_files(500_000), pytest.raises(UsageError) as caught:
        train(recipe, RunFolder.of(recipe), single_rank(), lambda _: None)
    found = re.match(
        r"a file on the disk of .*/snapshots is larger than `ulimit -f` allows \(488\.3 KiB allowed, more than 1\.2 "
        r"MiB needed\); the run stopped after (\d+) samples, it has no snapshot yet\. Raise that limit: the same c",
        str(caught.value),
    )
    assert found, caught.value
    assert 1 <= int(found[1]) < NUM_SAMPLES
    assert list((run_dir(recipe) / "snapshots").iterdir()) == []


def test_what_was_refused_first_is_told_although_the_last_snapshot_fails_as_well(
    dataset_path: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(dataset_path, tmp_path, "stop.metric=accuracy")

    def report(_: Numbers) -> None:
        raise UsageError("nobody listens")

    with limited_files(500_000), pytest.raises(UsageError, match=r"^nobody listens$"):
        train(recipe, RunFolder.of(recipe), single_rank(), report)


def test_run_that_does_not_fit_is_refused_before_its_first_step_and_by_the_dry_run(
    dataset_path: Path, disk: SmallDisk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Best, last and the one that is being written, and the bundle: three times 3 numbers a parameter, and one."""
    disk.fill(left=3 * SNAPSHOT)
    options = name_options(dataset_path, disk.folder)
    told = []
    for words in (options, [*options, "--dry-run"]):
        assert run_command(main, words) == 2
        told.append(capsys.readouterr().err)
        assert re.fullmatch(
            r"error: snapshots and bundle of the run need about (3\.9|4\.0) MiB more, the disk of "
            rf"{disk.folder}/run has 3\.[56] MiB free, so no step was taken; free some room there, or set "
            r"storage\.root to a folder on another disk\n",
            told[-1],
        ), told[-1]
    assert not (disk.folder / "run/ledger/position").exists()
    other = name_options(dataset_path, tmp_path / "other")
    assert run_command(main, [*other, "--dry-run"]) == 0
    disk.remount("size=16m")
    assert run_command(main, [*options, "--dry-run"]) == 0


@pytest.mark.slow
def test_room_that_the_runs_own_snapshots_take_is_counted_as_room(
    dataset_path: Path, disk: SmallDisk, straight: bytes
) -> None:
    recipe = make_recipe(dataset_path, disk.folder)
    train_until_full(recipe, disk, left=0)
    disk.empty()
    disk.fill(left=7 * SNAPSHOT // 3 + 200_000)
    train_quietly(recipe)
    assert final_weights(recipe) == straight


def test_leftovers_in_the_folder_of_a_run_are_removed_at_its_start(dataset_path: Path, tmp_path: Path) -> None:
    recipe = make_recipe(dataset_path, tmp_path, "epochs=1")
    left = run_dir(recipe) / "snapshots" / "000000000000036.partial-99999999"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    kept = run_dir(recipe) / "snapshots" / "notes"
    kept.mkdir()
    state = SnapshotStore(run_dir(recipe) / "snapshots").read_last()
    assert state is None
    train_quietly(recipe)
    assert sorted(os.listdir(run_dir(recipe) / "snapshots")) == [f"{NUM_SAMPLES:015d}", "notes"]


# After training


@pytest.fixture(scope="module")
def trained(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A run of one epoch without bundle, evaluations and report."""
    recipe = make_recipe(dataset_path, tmp_path_factory.mktemp("trained"), "epochs=1")
    train_quietly(recipe)
    return recipe


def copy_run(recipe: Recipe, root: Path) -> Recipe:
    shutil.copytree(run_dir(recipe), root / recipe.name)
    return recipe.model_copy(update={"storage": recipe.storage.model_copy(update={"root": str(root)})})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("left", "where"),
    [
        pytest.param(700_000, "run", id="bundle"),
        pytest.param(980_000, "run/evaluation/test", id="evaluation", marks=pytest.mark.slow),
        pytest.param(1_400_000, "run", id="report", marks=pytest.mark.slow),
    ],
)
def test_disk_that_fills_after_training_ends_the_run_and_the_same_command_writes_what_is_missing(
    left: int, where: str, trained: Recipe, disk: SmallDisk
) -> None:
    recipe = copy_run(trained, disk.folder)
    disk.fill(left)
    with pytest.raises(UsageError) as caught:
        run_rank(recipe, single_rank(), lambda _: None)
    assert re.match(
        rf"the disk of {disk.folder / where} is full \(.* free.*\); the run was stopped, its last snapshot is at "
        rf"{NUM_SAMPLES}\. Free some room there, or move {run_dir(recipe)} to another disk",
        str(caught.value),
    )
    assert not list(disk.folder.rglob("*.partial*"))
    assert not (run_dir(recipe) / "result.json").exists()
    disk.empty()
    assert run_rank(recipe, single_rank(), lambda _: None) == "finished"
    assert json.loads((run_dir(recipe) / "result.json").read_text())["outcome"] == "finished"
    assert "is left out" not in (run_dir(recipe) / "report.html").read_text()


def test_figure_that_has_no_room_is_not_left_out_but_ends_the_command(trained: Recipe, disk: SmallDisk) -> None:
    disk.fill(left=8192)
    rows = read_metrics(run_dir(trained))
    with pytest.raises(DiskError, match=f"^the disk of {disk.folder} is full"):
        try_extra("curves.png", lambda: draw_training(disk.folder / "curves.png", rows))
    assert os.listdir(disk.folder) == ["ballast"]


@pytest.mark.parametrize("kind", ["torchscript", "torch-export"])
def test_export_to_a_full_disk_leaves_nothing_and_with_room_it_is_written(
    kind: str, trained: Recipe, disk: SmallDisk
) -> None:
    bundle = make_bundle(trained, RunFolder.of(trained))
    disk.fill(left=300_000)
    with pytest.raises(DiskError, match=f"^the disk of {disk.folder} is full"):
        export_bundle(bundle, kind, disk.folder / "model")  # type: ignore[arg-type]
    assert os.listdir(disk.folder) == ["ballast"]
    disk.empty()
    export_bundle(bundle, kind, disk.folder / "model")  # type: ignore[arg-type]


def test_predict_with_a_full_disk_is_one_sentence_and_with_room_the_same_command_answers(
    trained: Recipe, pictures: Path, disk: SmallDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        str(make_bundle(trained, RunFolder.of(trained))),
        str(pictures / "test"),
        "--out",
        str(disk.folder / "out.csv"),
        "--workers",
        "1",
    ]
    disk.fill()
    assert run_command(predict, words) == 2
    assert capsys.readouterr().err == (
        f"error: the disk of {disk.folder} is full (0 bytes free); free some room there, or name a folder on another "
        "disk, and run the command again: it was stopped before its end\n"
    )
    assert os.listdir(disk.folder) == ["ballast"]
    disk.empty()
    assert run_command(predict, words) == 0
    assert len((disk.folder / "out.csv").read_text().splitlines()) == 1 + 24


def test_bundle_stays_as_it_is_where_a_new_one_has_no_room(trained: Recipe, disk: SmallDisk) -> None:
    recipe = copy_run(trained, disk.folder)
    before = Bundle.load(make_bundle(recipe, RunFolder.of(recipe))).page.fingerprint()
    disk.fill(left=100_000)
    with pytest.raises(DiskError, match=r"KiB free, more than \d+\.\d KiB needed\)"):
        make_bundle(recipe, RunFolder.of(recipe))
    assert Bundle.load(run_dir(recipe) / "bundle").page.fingerprint() == before
