"""A run in an object store: whatever becomes of its machines, it goes on from what the store has."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from object_stores import READER, run_seaweedfs
from runs import run_dir
from safetensors.torch import load_file

from shards.errors import UsageError
from shards.storage.storage import Storage, open_storage
from trainer.loop.loop import Outcome
from trainer.ranks.processes import run_processes
from trainer.ranks.ranks import Ranks, single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import Recipe
from trainer.record.ledger import read_ledger
from trainer.record.logbook import read_metrics
from trainer.record.run_folder import STOP_FILE, RunFolder, enter_work_folder
from trainer.record.store.standing import Standing, look_up
from trainer.run.job import run_rank
from trainer.run.launch import launch
from trainer.weights.resolve import resolve_recipe

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

ROOT = Path(__file__).parent.parent
NUM_SAMPLES = 72


def make_recipe(data: Path, root: str | Path, work: Path, *options: str) -> Recipe:
    """Eight epochs of 36 steps of a model with GroupNorm."""
    fixed = [f"data={data}", f"storage.root={root}", f"storage.work={work}", "track.wandb=disabled", "launch=local"]
    small = ["model=timm/test_efficientnet_gn", "epochs=8", "batch_size_global=2", "ledger=true", "evaluate_on=[]"]
    exact = ["name=run", "dtype=float64", "workers=1"]
    return resolve_recipe(load_recipe("smoke", [*fixed, *small, *exact, *options]))


def command_of(recipe: Recipe, folder: Path) -> list[str]:
    recipe.write(folder / "recipe.yaml")
    return [sys.executable, "-m", "trainer.run", str(folder / "recipe.yaml")]


def start(recipe: Recipe, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command_of(recipe, folder), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def store_of(recipe: Recipe) -> Storage:
    uri = RunFolder.of(recipe).uri
    assert uri
    return open_storage(uri)


def stored_snapshots(storage: Storage) -> list[int]:
    """Positions of the whole snapshots of a store."""
    return sorted(int(name.split("/")[1]) for name in storage.sizes() if name.endswith("/state.json"))


def wait_for_snapshot(process: subprocess.Popen[str], recipe: Recipe, least: int = 1) -> None:
    """Return when the store has a snapshot in the middle of an epoch."""
    storage, until = store_of(recipe), time.monotonic() + 120
    while not any(position % NUM_SAMPLES and position >= least for position in stored_snapshots(storage)):
        assert process.poll() is None, process.communicate()[1][-2000:]
        assert time.monotonic() < until
        time.sleep(0.05)


def seen_in_store(recipe: Recipe, folder: Path) -> list[tuple[int, int, int, int]]:
    """(epoch, step, sample id, hash of the pixels) of the ledger in the store."""
    storage = store_of(recipe)
    folder.mkdir()
    for name in storage.sizes():
        if name.startswith("ledger/rank-"):
            (folder / Path(name).name).write_bytes(storage.read(name))
    return seen(folder)


def seen(folder: Path) -> list[tuple[int, int, int, int]]:
    table = read_ledger(folder)
    names = ("epoch", "step", "sample_id", "pixels_xxh3")
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(max((folder / "snapshots").iterdir()) / "model.safetensors")


def read_stored_weights(recipe: Recipe, folder: Path) -> dict[str, torch.Tensor]:
    name = f"snapshots/{max(stored_snapshots(store_of(recipe))):015d}/model.safetensors"
    (folder / "stored.safetensors").write_bytes(store_of(recipe).read(name))
    return load_file(folder / "stored.safetensors")


@pytest.fixture(scope="module")
def straight(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """An uninterrupted run in a folder."""
    root = tmp_path_factory.mktemp("straight")
    recipe = make_recipe(dataset_path, root, root)
    launch(recipe)
    return recipe


@pytest.fixture(scope="module")
def killed(dataset_path: Path, s3: str, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A run that is killed within an epoch; its machine is lost with all its files, and another one ends the run."""
    folder = tmp_path_factory.mktemp("killed")
    recipe = make_recipe(dataset_path, s3.format(path="killed"), folder / "work", "snapshot.every_s=0.2")
    process = start(recipe, folder)
    wait_for_snapshot(process, recipe)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    shutil.rmtree(folder / "work")
    launch(recipe)
    return recipe


@pytest.mark.slow
def test_weights_of_a_run_that_lost_its_machine_are_those_of_an_uninterrupted_one(
    killed: Recipe, straight: Recipe, tmp_path: Path
) -> None:
    torch.testing.assert_close(
        read_stored_weights(killed, tmp_path), read_weights(run_dir(straight)), rtol=0, atol=1e-12
    )


@pytest.mark.slow
def test_ledger_in_the_store_is_that_of_an_uninterrupted_run(killed: Recipe, straight: Recipe, tmp_path: Path) -> None:
    assert seen_in_store(killed, tmp_path / "ledger") == seen(run_dir(straight) / "ledger")


@pytest.mark.slow
def test_metrics_in_the_store_are_those_of_an_uninterrupted_run(
    killed: Recipe, straight: Recipe, tmp_path: Path
) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(store_of(killed).read("metrics.jsonl"))
    ours, theirs = ([row["val/log_loss"] for row in read_metrics(path)] for path in (tmp_path, run_dir(straight)))
    assert ours == pytest.approx(theirs, abs=1e-9)


@pytest.mark.slow
def test_store_holds_what_a_run_leaves_and_nothing_of_its_machine(killed: Recipe) -> None:
    names = store_of(killed).sizes()
    tops = {name.split("/")[0] for name in names}
    assert tops == {
        "recipe.yaml", "run.json", "metrics.jsonl", "snapshots", "ledger", "bundle", "augment.png", "curves.png",
        "report.html", "model_card.md", "environment.json", "result.json",
    }  # fmt: skip
    assert len(stored_snapshots(store_of(killed))) <= 2
    assert not [name for name in names if ".partial" in name]


@pytest.mark.slow
def test_another_machine_that_repeats_the_command_gets_the_outputs_and_trains_nothing(
    killed: Recipe, tmp_path: Path
) -> None:
    before = store_of(killed).sizes().keys()
    recipe = move(killed, tmp_path)
    launch(recipe)
    assert {path.name for path in run_dir(recipe).iterdir()} >= {
        "bundle",
        "report.html",
        "metrics.jsonl",
        "result.json",
    }
    assert not (run_dir(recipe) / "snapshots").exists()
    assert store_of(killed).sizes().keys() == before


def move(recipe: Recipe, work: Path) -> Recipe:
    """The same run on a machine with another work folder."""
    return recipe.model_copy(update={"storage": recipe.storage.model_copy(update={"work": str(work)})})


@pytest.mark.slow
def test_run_of_another_recipe_in_the_store_is_refused_with_the_first_difference(
    killed: Recipe, tmp_path: Path
) -> None:
    other = move(killed, tmp_path).model_copy(update={"seed": 7})
    with pytest.raises(UsageError) as caught:
        launch(other)
    assert str(caught.value) == (
        f"{RunFolder.of(killed)} has a run with another recipe (seed was 0, now 7); "
        "choose another name=, or delete that folder"
    )


@pytest.mark.slow
def test_upload_that_was_cut_is_no_snapshot(dataset_path: Path, s3: str, straight: Recipe, tmp_path: Path) -> None:
    """A snapshot without its state.json, which goes up last, is passed over, and later removed."""
    recipe = stop_early(make_recipe(dataset_path, s3.format(path="cut"), tmp_path / "work"))
    storage = store_of(recipe)
    (position,) = stored_snapshots(storage)
    name = f"snapshots/{position + 2:015d}/model.safetensors"
    storage.write(name, b"half")
    shutil.rmtree(tmp_path / "work")
    launch(recipe)
    assert name not in storage.sizes()
    torch.testing.assert_close(read_weights(run_dir(recipe)), read_weights(run_dir(straight)), rtol=0, atol=1e-12)


def stop_early(recipe: Recipe) -> Recipe:
    """Take one step and stop, as Ctrl-C does."""
    RunFolder.of(recipe).claim(recipe)
    (run_dir(recipe) / STOP_FILE).touch()
    assert run_rank(recipe, single_rank(), lambda _: None) == "interrupted"
    (run_dir(recipe) / STOP_FILE).unlink()
    return recipe


@pytest.mark.slow
def test_state_that_never_reached_the_store_is_gone_on_from(
    dataset_path: Path, s3: str, straight: Recipe, tmp_path: Path
) -> None:
    recipe = stop_early(make_recipe(dataset_path, s3.format(path="behind"), tmp_path / "work"))
    storage = store_of(recipe)
    storage.delete([name for name in storage.sizes() if name.startswith("snapshots/")])
    launch(recipe)
    assert seen_in_store(recipe, tmp_path / "ledger") == seen(run_dir(straight) / "ledger")
    assert storage.sizes().keys() >= {"result.json"}


def test_state_of_a_run_that_was_removed_from_the_store_does_not_come_back(
    dataset_path: Path, s3: str, tmp_path: Path
) -> None:
    recipe = stop_early(make_recipe(dataset_path, s3.format(path="removed"), tmp_path / "work"))
    storage = store_of(recipe)
    storage.delete(list(storage.sizes()))
    other = recipe.model_copy(update={"seed": 3})
    RunFolder.of(other).claim(other)  # the same name for another recipe: the old state is neither refused nor used
    assert not (run_dir(recipe) / "snapshots").exists()


def test_standing_of_a_run_is_looked_up_in_its_store_and_nothing_is_left_there(
    dataset_path: Path, s3: str, tmp_path: Path
) -> None:
    fresh = make_recipe(dataset_path, s3.format(path="standing"), tmp_path / "work")
    assert look_up(fresh, RunFolder.of(fresh)) == Standing(samples_seen=0, is_finished=False)
    assert store_of(fresh).sizes() == {}
    recipe = stop_early(fresh)
    names = store_of(recipe).sizes()
    elsewhere = move(recipe, tmp_path / "elsewhere")
    assert (
        look_up(elsewhere, RunFolder.of(elsewhere))
        == look_up(recipe, RunFolder.of(recipe))
        == Standing(samples_seen=2, is_finished=False)
    )
    with pytest.raises(UsageError, match=r"/standing/run has a run with another recipe \(seed was 0, now 3\); choose"):
        look_up(elsewhere.model_copy(update={"seed": 3}), RunFolder.of(elsewhere))
    store_of(recipe).write("result.json", b"{}")
    assert look_up(elsewhere, RunFolder.of(elsewhere)) == Standing(samples_seen=2, is_finished=True)
    assert store_of(recipe).sizes().keys() == names.keys() | {"result.json"}
    assert not run_dir(elsewhere).exists()


def test_state_here_of_another_run_of_the_same_name_does_not_count(dataset_path: Path, s3: str, tmp_path: Path) -> None:
    recipe = stop_early(make_recipe(dataset_path, s3.format(path="namesake"), tmp_path / "work"))
    storage = store_of(recipe)
    storage.delete(list(storage.sizes()))
    assert look_up(recipe, RunFolder.of(recipe)) == Standing(samples_seen=0, is_finished=False)


def test_keys_that_a_store_does_not_take_are_refused_in_one_sentence(
    dataset_path: Path, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(dataset_path, s3.format(path="denied"), tmp_path / "work")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    for look in (partial(look_up, recipe), RunFolder.read_parts):
        with pytest.raises(PermissionError) as caught:
            look(RunFolder.of(recipe))
        assert str(caught.value).count("the store denies access") == 1


def test_keys_that_may_read_and_not_write_are_refused_before_the_run(
    dataset_path: Path, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = stop_early(make_recipe(dataset_path, s3.format(path="read-only"), tmp_path / "work"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER[1])
    assert RunFolder.of(recipe).read_parts() == 1
    with pytest.raises(PermissionError, match=r"the store denies access .*check the keys"):
        look_up(recipe, RunFolder.of(recipe))


@pytest.mark.slow
def test_run_is_kept_in_gcs_as_well(dataset_path: Path, gcs: str, tmp_path: Path) -> None:
    options = ("epochs=2", "batch_size_global=12", "stop.patience=1", "stop.min_delta=1")
    recipe = make_recipe(dataset_path, gcs.format(path="runs"), tmp_path / "work", *options)
    launch(recipe)
    names = store_of(recipe).sizes()
    assert names.keys() >= {"result.json", "report.html", "bundle/weights.safetensors", "metrics.jsonl"}
    assert stored_snapshots(store_of(recipe)) == [NUM_SAMPLES, 2 * NUM_SAMPLES]  # the best and the last


@pytest.mark.slow
def test_store_that_stays_away_ends_the_run_with_a_sentence_and_its_state_on_this_machine(
    dataset_path: Path, straight: Recipe, tmp_path: Path
) -> None:
    keys = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    with run_seaweedfs(tmp_path / "s3", *keys) as own:
        root = own.s3.format(path="away")
        options = ("snapshot.every_s=0.2", "storage.deadline_s=3", "epochs=100", "ledger=false")
        recipe = make_recipe(dataset_path, root, tmp_path / "work", *options)
        process = start(recipe, tmp_path)
        wait_for_snapshot(process, recipe)
        own.kill()
        _, errors = process.communicate(timeout=100)
        assert (process.returncode, "Traceback" in errors) == (2, False), errors
        assert (
            f"its state is saved on this machine in {run_dir(recipe)}, and the same command resumes from it" in errors
        )
        assert "error: s3://shards/away/run" in errors
        local = max(int(path.name) for path in (run_dir(recipe) / "snapshots").iterdir())
        own.start()
        assert local > max(stored_snapshots(store_of(recipe)))
        again = start(recipe, tmp_path)
        wait_for_snapshot(again, recipe, least=local)
        again.send_signal(signal.SIGINT)
        _, errors = again.communicate(timeout=100)
        assert again.returncode == 130, errors
        assert f"the state is saved in {RunFolder.of(recipe)}, and the same command resumes from it" in errors


def run_on_nodes(ranks: Ranks, recipe: Recipe, work: Path, nodes: list[str], stop: bool) -> Outcome:
    """A rank on a machine of its own: its work folder is nobody else's."""
    recipe = move(recipe, work / nodes[ranks.rank])
    if stop and ranks.is_first:
        run_dir(recipe).mkdir(parents=True, exist_ok=True)
        (run_dir(recipe) / STOP_FILE).touch()
    return run_rank(recipe, ranks, lambda _: None)


@pytest.mark.slow
def test_nodes_without_a_common_disk_share_a_run_and_may_change(
    dataset_path: Path, s3: str, straight: Recipe, tmp_path: Path
) -> None:
    recipe = make_recipe(dataset_path, s3.format(path="nodes"), tmp_path / "command")
    RunFolder.of(recipe).claim(recipe)
    for node in ("a", "b"):
        enter(recipe, tmp_path / node)
    assert run_processes(run_on_nodes, (recipe, tmp_path, ["a", "b"], True), 2) == "interrupted"
    shutil.rmtree(tmp_path / "a")
    assert run_processes(run_on_nodes, (recipe, tmp_path, ["b", "c"], False), 2) == "finished"
    assert seen_in_store(recipe, tmp_path / "ledger") == seen(run_dir(straight) / "ledger")
    torch.testing.assert_close(
        read_stored_weights(recipe, tmp_path), read_weights(run_dir(straight)), rtol=0, atol=1e-9
    )
    assert json.loads(store_of(recipe).read("result.json"))["num_ranks"] == 2


def enter(recipe: Recipe, work: Path) -> None:
    store = RunFolder.of(recipe).store
    assert store is not None
    enter_work_folder(run_dir(move(recipe, work)), store)
