"""The exact stream and the exact resume: what a run sees and what it ends with, however it was cut."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import make_pictures
from runs import run_dir, save_weights
from safetensors.torch import load_file

from shards.cli.ending import run_command
from shards.dataset.dataset import open_dataset
from shards.errors import ShardError, UsageError
from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.sources.find import find_sources
from trainer.bundle.make import make_bundle
from trainer.feed.stream import TrainStream
from trainer.loop.build import build_preprocess
from trainer.loop.loop import Outcome, train
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import Recipe
from trainer.record.ledger import read_ledger, read_position
from trainer.record.logbook import read_metrics, read_progress
from trainer.record.run_folder import STOP_FILE, RunFolder
from trainer.record.snapshot import SnapshotStore, name_snapshot
from trainer.record.steps import read_steps
from trainer.run.__main__ import main
from trainer.run.dry_run import plan_run
from trainer.run.finish import finish_run
from trainer.run.launch import launch
from trainer.weights.resolve import resolve_recipe

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

ROOT = Path(__file__).parent.parent
NUM_SAMPLES = 72


def make_recipe(data: Path, root: Path, *options: str) -> Recipe:
    fixed = [f"data={data}", f"storage.root={root}", "track.wandb=disabled", "launch=local", "ledger=true"]
    small = ["model=timm/test_efficientnet", "epochs=2", "optim.peak_lr=0.001", "snapshot.every_s=1000"]
    return resolve_recipe(load_recipe("smoke", [*fixed, *small, *options]))  # as a command does


def train_quietly(recipe: Recipe) -> Outcome:
    run_dir(recipe).mkdir(parents=True, exist_ok=True)
    return train(recipe, RunFolder.of(recipe), single_rank(), lambda _: None)


def seen(recipe: Recipe) -> list[tuple[int, int, int, int]]:
    """(epoch, step, sample id, hash of the pixels) of all steps that led to the weights, in order."""
    return rows_of(read_ledger(run_dir(recipe) / "ledger"))


def rows_of(table: pa.Table) -> list[tuple[int, int, int, int]]:
    names = ("epoch", "step", "sample_id", "pixels_xxh3")
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


def final_weights(recipe: Recipe) -> bytes:
    """The bytes of the last snapshot's tensors, in the order of their names."""
    tensors = load_file(last_folder(recipe) / "model.safetensors")
    return b"".join(tensors[name].contiguous().numpy().tobytes() for name in sorted(tensors))


def last_folder(recipe: Recipe) -> Path:
    return max((run_dir(recipe) / "snapshots").iterdir())


@pytest.fixture(scope="module")
def straight(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A run that nobody interrupts: two epochs of six steps."""
    recipe = make_recipe(dataset_path, tmp_path_factory.mktemp("straight"), "name=straight")
    assert train_quietly(recipe) == "finished"
    return recipe


def copy_run(recipe: Recipe, root: Path) -> Recipe:
    """A copy of a run below another root, and its recipe."""
    shutil.copytree(run_dir(recipe), root / recipe.name)
    return recipe.model_copy(update={"storage": recipe.storage.model_copy(update={"root": str(root)})})


@pytest.fixture(scope="module")
def chopped(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, list[Outcome]]:
    """The run of batch size 12, stopped and started again after every single step; 12 steps, 2 of them end an epoch."""
    recipe = make_recipe(dataset_path, tmp_path_factory.mktemp("chopped"), "name=chopped")
    run_dir(recipe).mkdir()
    (run_dir(recipe) / STOP_FILE).touch()
    outcomes = [train_quietly(recipe) for _ in range(13)]
    return recipe, outcomes


def test_run_that_is_stopped_in_every_step_ends_after_as_many_starts_as_it_has_steps(
    chopped: tuple[Recipe, list[Outcome]],
) -> None:
    assert chopped[1] == ["interrupted"] * 12 + ["finished"]


def test_weights_after_a_stop_in_every_step_are_those_of_an_uninterrupted_run_bit_for_bit(
    chopped: tuple[Recipe, list[Outcome]], straight: Recipe
) -> None:
    assert final_weights(chopped[0]) == final_weights(straight)


def test_ledger_after_a_stop_in_every_step_is_that_of_an_uninterrupted_run(
    chopped: tuple[Recipe, list[Outcome]], straight: Recipe
) -> None:
    assert seen(chopped[0]) == seen(straight)


def test_metrics_after_a_stop_in_every_step_are_those_of_an_uninterrupted_run(
    chopped: tuple[Recipe, list[Outcome]], straight: Recipe
) -> None:
    """One row an epoch, that of the epoch that was stopped between its last step and its validation included."""
    assert judged(chopped[0]) == judged(straight)


def judged(recipe: Recipe) -> list[dict[str, float]]:
    """The rows of metrics.jsonl without what depends on the clock or on the last start alone."""
    clock = ("train/time_s", "val/time_s")
    return [
        {name: value for name, value in row.items() if name not in clock and not name.startswith("feed/")}
        for row in read_metrics(run_dir(recipe))
    ]


@pytest.fixture(scope="module")
def redone(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A run of three steps that falls back to the snapshot of its first step, as after a kill, and then goes on."""
    root = tmp_path_factory.mktemp("redone")
    recipe = make_recipe(dataset_path, root, "name=redone")
    run_dir(recipe).mkdir()
    (run_dir(recipe) / STOP_FILE).touch()
    train_quietly(recipe)
    shutil.copytree(run_dir(recipe) / "snapshots", root / "snapshots")
    train_quietly(recipe)
    train_quietly(recipe)
    shutil.rmtree(run_dir(recipe) / "snapshots")
    shutil.copytree(root / "snapshots", run_dir(recipe) / "snapshots")
    (run_dir(recipe) / STOP_FILE).unlink()
    train_quietly(recipe)
    return recipe


def test_step_that_comes_again_is_flagged(redone: Recipe) -> None:
    table = read_ledger(run_dir(redone) / "ledger")
    assert table["step"].to_numpy()[table["redone"].to_numpy()].tolist() == [1] * 12 + [2] * 12


def test_step_that_comes_again_is_in_the_ledger_once(redone: Recipe, straight: Recipe) -> None:
    assert seen(redone) == seen(straight)


def test_metrics_row_of_an_epoch_that_comes_again_is_written_once(dataset_path: Path, tmp_path: Path) -> None:
    """Killed between the row and the snapshot of an epoch, with a snapshot at its last step: the row is dropped."""
    recipe = make_recipe(dataset_path, tmp_path, "name=again", "batch_size_global=72")
    run_dir(recipe).mkdir()
    (run_dir(recipe) / STOP_FILE).touch()
    train_quietly(recipe)
    (run_dir(recipe) / "metrics.jsonl").write_text(json.dumps({"epoch": 1, "samples_seen": NUM_SAMPLES}) + "\n")
    (run_dir(recipe) / STOP_FILE).unlink()
    train_quietly(recipe)
    assert [(row["epoch"], "val/accuracy" in row) for row in read_metrics(run_dir(recipe))] == [
        (1, True),
        (2, True),
    ]


def write_recipe(recipe: Recipe, folder: Path) -> str:
    """What to name to the command to train `recipe`."""
    path = folder / f"{recipe.name}.yaml"
    recipe.write(path)
    return str(path)


def start(recipe: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "trainer.run", recipe]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_ADDRESS": ""}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def last_snapshot(recipe: Recipe) -> int:
    return max((int(path.name) for path in run_dir(recipe).glob("snapshots/*") if path.name.isdigit()), default=0)


@pytest.fixture(scope="module")
def long_run(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """An uninterrupted run of two epochs of 36 steps: long enough to be hit in the middle."""
    recipe = make_recipe(
        dataset_path, tmp_path_factory.mktemp("long"), "name=long", "batch_size_global=2", "evaluate_on=[]"
    )
    train_quietly(recipe)
    return recipe


def test_ctrl_c_in_an_epoch_exits_130_and_the_same_command_ends_with_the_same_weights(
    long_run: Recipe, dataset_path: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(dataset_path, tmp_path, "name=cut", "batch_size_global=2", "evaluate_on=[]")
    written = write_recipe(recipe, tmp_path)
    process = start(written)
    while read_position(run_dir(recipe) / "ledger") == 0 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == (
        f"interrupted; the state is saved in {run_dir(recipe)}, and the same command resumes from it"
    )
    assert last_snapshot(recipe) % NUM_SAMPLES > 0
    assert run_command(main, [written]) == 0
    assert seen(recipe) == seen(long_run)
    assert final_weights(recipe) == final_weights(long_run)


@pytest.mark.slow
def test_kill_in_an_epoch_loses_nothing_but_time(long_run: Recipe, dataset_path: Path, tmp_path: Path) -> None:
    options = ("name=killed", "batch_size_global=2", "evaluate_on=[]", "snapshot.every_s=0.2")
    recipe = make_recipe(dataset_path, tmp_path, *options)
    process = start(write_recipe(recipe, tmp_path))
    while not (0 < last_snapshot(recipe) < read_position(run_dir(recipe) / "ledger") - 4) and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    kept, reached = last_snapshot(recipe), read_position(run_dir(recipe) / "ledger")
    assert kept % NUM_SAMPLES > 0
    assert train_quietly(recipe) == "finished"
    assert seen(recipe) == seen(long_run)
    assert final_weights(recipe) == final_weights(long_run)
    redone = np.flatnonzero(read_ledger(run_dir(recipe) / "ledger")["redone"].to_numpy())
    assert redone.tolist() == list(range(kept, reached + 1))


def test_snapshot_of_another_dataset_is_refused_and_both_are_named(straight: Recipe, tmp_path: Path) -> None:
    recipe = copy_run(straight, tmp_path)
    other = tmp_path / "other"
    shutil.copytree(recipe.data, other)
    manifest = json.loads((other / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps(manifest | {"quarantined": 1}))
    ours, theirs = (open_dataset(path).fingerprint()[:12] for path in (recipe.data, other))
    with pytest.raises(UsageError) as caught:
        train_quietly(recipe.model_copy(update={"data": str(other)}))
    assert str(caught.value) == (
        f"the snapshot belongs to dataset {ours}, but the recipe's data is {theirs}; its position is not valid there. "
        "Choose another name=, or delete the run's folder"
    )


def test_run_is_not_resumed_on_a_dataset_whose_weights_were_updated(
    straight: Recipe, pictures: Path, tmp_path: Path
) -> None:
    recipe, other = copy_run(straight, tmp_path), tmp_path / "other"
    shutil.copytree(recipe.data, other)
    source = shutil.copytree(pictures, tmp_path / "pictures")
    (source / "samples.csv").write_text("path,weight\ntrain/red/red.0.jpg,2\n")
    pack(find_sources(source), other, PackOptions(shard_bytes=40_000), update=True)
    with pytest.raises(UsageError, match="the snapshot belongs to dataset"):
        train_quietly(recipe.model_copy(update={"data": str(other)}))


def test_snapshot_of_another_recipe_is_refused_and_both_are_named(straight: Recipe, tmp_path: Path) -> None:
    recipe = copy_run(straight, tmp_path)
    other = recipe.model_copy(update={"seed": 1})
    with pytest.raises(UsageError) as caught:
        train_quietly(other)
    assert str(caught.value) == (
        f"the snapshot belongs to recipe {recipe.fingerprint()[:12]}, but this one is {other.fingerprint()[:12]}; "
        "choose another name=, or delete the run's folder"
    )


@pytest.mark.parametrize("name", ["state.json", "model.safetensors", "optimizer.pt"])
def test_damaged_snapshot_is_refused_with_its_path_and_the_remedy(straight: Recipe, tmp_path: Path, name: str) -> None:
    recipe = copy_run(straight, tmp_path)
    path = last_folder(recipe) / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ShardError) as caught:
        train_quietly(recipe)
    assert str(caught.value).startswith(f"{path.parent} is damaged (")
    assert str(caught.value).endswith("); delete that folder to resume from the previous snapshot")


def test_snapshot_of_an_epoch_that_is_judged_keeps_its_tensors(dataset_path: Path, tmp_path: Path) -> None:
    """So that there is a whole snapshot at every moment: a kill while another took its place would lose both."""
    recipe = make_recipe(dataset_path, tmp_path, "name=judged", "epochs=1", f"batch_size_global={NUM_SAMPLES}")
    run_dir(recipe).mkdir()
    (run_dir(recipe) / STOP_FILE).touch()
    written = []
    for outcome, epochs_done in (("interrupted", 0), ("finished", 1)):
        assert train_quietly(recipe) == outcome
        state = SnapshotStore(run_dir(recipe) / "snapshots").read_last()
        assert state is not None
        assert (state.samples_seen, state.epochs_done) == (NUM_SAMPLES, epochs_done)
        written.append({path.name: path.stat().st_ino for path in last_folder(recipe).iterdir()})
    assert {name for name in written[0] if written[1][name] != written[0][name]} == {"state.json"}


@pytest.fixture(scope="module")
def stopped_early(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """No accuracy is better than another by 1, so epoch 1 stays the best and patience runs out after epoch 3."""
    options = ("name=early", "epochs=9", "stop.patience=2", "stop.min_delta=1", "batch_size_global=36")
    recipe = make_recipe(dataset_path, tmp_path_factory.mktemp("early"), *options)
    assert train_quietly(recipe) == "finished"
    return recipe


def test_run_stops_when_patience_has_run_out(stopped_early: Recipe) -> None:
    assert [row["epoch"] for row in read_metrics(run_dir(stopped_early))] == [1, 2, 3]


def test_snapshots_are_pruned_to_the_best_and_the_last(stopped_early: Recipe) -> None:
    names = sorted(int(path.name) for path in (run_dir(stopped_early) / "snapshots").iterdir())
    assert names == [1 * NUM_SAMPLES, 3 * NUM_SAMPLES]


def test_state_of_a_stopped_run_names_the_best_epoch(stopped_early: Recipe) -> None:
    state = SnapshotStore(run_dir(stopped_early) / "snapshots").read_last()
    assert state is not None
    assert state.best is not None
    assert (state.best.epoch, state.best.value) == (
        1,
        read_metrics(run_dir(stopped_early))[0]["val/accuracy"],
    )


def test_training_that_stopped_early_does_not_go_on(stopped_early: Recipe) -> None:
    before = final_weights(stopped_early)
    assert train_quietly(stopped_early) == "finished"
    assert final_weights(stopped_early) == before


def train_stopped_in_every_step(recipe: Recipe) -> None:
    run_dir(recipe).mkdir()
    (run_dir(recipe) / STOP_FILE).touch()
    while train_quietly(recipe) == "interrupted":
        pass


def test_divergence_ends_in_a_sentence(dataset_path: Path, tmp_path: Path) -> None:
    recipe = make_recipe(dataset_path, tmp_path, "name=wild", "optim.peak_lr=1e30")
    sentence = r"^step \d+: the loss of \d+ of 12 samples is not finite \(ids .*\): training diverged or a pic"
    with pytest.raises(ShardError, match=sentence):
        train_quietly(recipe)
    saved = sorted((run_dir(recipe) / "nonfinite").iterdir())
    assert [path.name.partition("-rank-")[2] for path in saved] == ["0000.safetensors"]


@pytest.fixture(scope="module")
def spoilt_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with samples whose weight is at the end of float32: times an untrained model's loss it is infinite."""
    root = tmp_path_factory.mktemp("spoilt")
    pictures = make_pictures(root / "pictures", {"train": 24, "val": 4, "test": 1})
    heavy = [f"train/red/{path.name},3.4e38" for path in sorted((pictures / "train/red").iterdir())]
    (pictures / "samples.csv").write_text("\n".join(["path,weight", *heavy, ""]))
    pack(find_sources(pictures), root / "shards", PackOptions())
    return root / "shards"


def test_pictures_that_are_saved_are_those_of_the_step_although_the_feed_has_gone_on(
    spoilt_path: Path, tmp_path: Path
) -> None:
    """It is told one step later, when the next batch is there and others are being read into memory used before."""
    recipe = make_recipe(
        spoilt_path, tmp_path, "name=spoilt", "batch_size_global=4", "augment.policy=none", "workers=2"
    )
    with pytest.raises(ShardError, match="is not finite"):
        train_quietly(recipe)
    (path,) = (run_dir(recipe) / "nonfinite").iterdir()
    saved = load_file(path)
    dataset = open_dataset(spoilt_path)
    stream = TrainStream(dataset.split("train"), recipe, build_preprocess(recipe, dataset), single_rank())
    step = int(path.name.split("-")[1])
    batch = next(stream.iterate(0, step))
    places = [batch.ids.tolist().index(number) for number in saved["ids"].tolist()]
    assert torch.equal(saved["images"], batch.images[places])
    stream.close()


def test_progress_tells_the_mean_loss_of_the_epoch_so_far(dataset_path: Path, tmp_path: Path) -> None:
    recipe = make_recipe(dataset_path, tmp_path, "name=shown", "epochs=1")
    train_quietly(recipe)
    shown = read_progress(run_dir(recipe))["numbers"]["loss"]
    assert shown == pytest.approx(read_metrics(run_dir(recipe))[0]["train/loss"], rel=1e-6)


def test_metric_that_the_validation_part_cannot_give_is_refused_in_a_sentence(tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path / "pictures", {"train": 4, "val": 2, "test": 1})
    shutil.rmtree(pictures / "val/red")
    pack(find_sources(pictures), tmp_path / "shards", PackOptions())
    recipe = make_recipe(tmp_path / "shards", tmp_path, "name=auroc", "stop.metric=auroc", "evaluate_on=[]")
    sentence = (
        "stop.metric=auroc needs pictures of every class, and there are none of red in the validation split; set "
        "stop.metric=accuracy, or pack again with a larger val"
    )
    for refused in (lambda: train_quietly(recipe), lambda: launch(recipe), lambda: plan_run(recipe)):
        with pytest.raises(UsageError) as caught:
            refused()
        assert str(caught.value) == sentence
    assert not (run_dir(recipe) / "metrics.jsonl").exists()
    assert plan_run(make_recipe(tmp_path / "shards", tmp_path, "stop.metric=accuracy", "evaluate_on=[]"))


def test_run_leaves_steps_out_whose_loss_is_not_finite_and_counts_them(tmp_path: Path) -> None:
    """A sample whose weight is at the end of float32: times an untrained model's loss it is infinite."""
    pictures = make_pictures(tmp_path / "pictures", {"train": 8, "val": 4, "test": 1})
    (pictures / "samples.csv").write_text("path,weight\ntrain/red/red.0.jpg,3.4e38\n")
    pack(find_sources(pictures), tmp_path / "shards", PackOptions())
    recipe = make_recipe(tmp_path / "shards", tmp_path, "name=skips", "step.on_nan=skip", "batch_size_global=6")
    assert train_quietly(recipe) == "finished"
    rows = read_metrics(run_dir(recipe))
    assert rows[0]["train/skipped_steps"] == 1
    assert len(list((run_dir(recipe) / "nonfinite").iterdir())) == rows[-1]["train/skipped_steps"]


@pytest.mark.parametrize(
    "option",
    [
        "step.ema=0.9",
        *(
            pytest.param(option, marks=pytest.mark.slow)
            for option in (
                "amp=fp16",
                "amp=bf16",
                "optim.name=ranger",
                "optim.clip_norm=0.5",
                "optim.name=adamw",
                "step.accumulate=3",
                "loss.class_weights=balanced",
            )
        ),
    ],
)
def test_resume_is_exact_with_every_kind_of_state(option: str, dataset_path: Path, tmp_path: Path) -> None:
    straight, cut = (
        make_recipe(dataset_path, tmp_path, f"name={name}", "batch_size_global=6", "epochs=1", option)
        for name in ("straight", "cut")
    )
    train_quietly(straight)
    train_stopped_in_every_step(cut)
    assert final_weights(cut) == final_weights(straight)


@pytest.mark.parametrize(
    "options", [("freeze_epochs=1",), pytest.param((), marks=pytest.mark.slow)], ids=["released", "frozen to the end"]
)
def test_resume_is_exact_across_what_is_frozen(options: tuple[str, ...], dataset_path: Path, tmp_path: Path) -> None:
    weights = save_weights(tmp_path / "w.pth", "timm/test_efficientnet")
    frozen = ["freeze=[backbone]", *options, f"weights={weights}", "schedule=default-0.5-3", "batch_size_global=18"]
    straight, cut = (make_recipe(dataset_path, tmp_path, f"name={name}", *frozen) for name in ("straight", "cut"))
    train_quietly(straight)
    train_stopped_in_every_step(cut)
    assert final_weights(cut) == final_weights(straight)


def test_bundle_holds_the_average_of_the_weights(dataset_path: Path, tmp_path: Path) -> None:
    recipe = make_recipe(dataset_path, tmp_path, "name=average", "step.ema=0.9", "epochs=1")
    train_quietly(recipe)
    bundle = load_file(make_bundle(recipe, RunFolder.of(recipe)) / "weights.safetensors")
    (snapshot,) = (run_dir(recipe) / "snapshots").iterdir()
    own, average = (load_file(snapshot / name) for name in ("model.safetensors", "average.safetensors"))
    name = "backbone.classifier.weight"
    assert torch.equal(bundle[name], average[name])
    assert not torch.equal(bundle[name], own[name])


@pytest.mark.parametrize(
    ("keep", "left"), [pytest.param("all", 3, marks=pytest.mark.slow), ("best-and-last", 2), ("best", 1)]
)
def test_as_many_snapshots_stay_as_the_recipe_wants(dataset_path: Path, tmp_path: Path, keep: str, left: int) -> None:
    """Three epochs, of which the first is the best: later ones would have to gain more than all there is."""
    options = ["epochs=3", "stop.min_delta=1", f"snapshot.keep={keep}", "evaluate_on=[]"]
    recipe = make_recipe(dataset_path, tmp_path, "name=keeps", *options)
    train_quietly(recipe)
    finish_run(recipe, RunFolder.of(recipe), single_rank())
    names = sorted(path.name for path in (run_dir(recipe) / "snapshots").iterdir())
    assert len(names) == left
    assert names[0] == name_snapshot(NUM_SAMPLES)


def test_limit_trains_on_about_as_many_samples(dataset_path: Path, tmp_path: Path) -> None:
    recipe = make_recipe(dataset_path, tmp_path, "name=limit", "limit_samples=30", "epochs=1")
    train_quietly(recipe)
    assert read_metrics(run_dir(recipe))[0]["samples_seen"] == 30


def test_losses_of_20_steps_are_the_recorded_ones(dataset_path: Path, tmp_path: Path) -> None:
    """A change that moves them changes what every recipe learns: record them anew with a reason only."""
    exact = ["model=timm/test_efficientnet_gn", "dtype=float64", "epochs=4", "batch_size_global=15", "seed=3"]
    shown = [
        "name=golden",
        "augment.policy=flip",
        "optim.peak_lr=0.003",
        "track.every_steps=1",
        "preprocess.normalise=half",
    ]
    recipe = make_recipe(dataset_path, tmp_path, *exact, *shown)
    train_quietly(recipe)
    losses = [row["step/loss"] for row in read_steps(run_dir(recipe))]
    recorded = json.loads((ROOT / "tests/golden/losses.json").read_text())
    assert len(recorded) == 20
    assert losses == pytest.approx(recorded, rel=1e-6)
