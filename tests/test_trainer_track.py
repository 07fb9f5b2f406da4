"""What reaches W&B, read back with its own tool; and that W&B cannot stop a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from shards.dataset import open_dataset
from trainer.loop import train
from trainer.options.run import TrackOptions
from trainer.ranks import single_rank
from trainer.recipe import Recipe
from trainer.recipe_file import load_recipe
from trainer.record.logbook import read_metrics
from trainer.record.track import choose_mode

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores


def train_run(data: Path, root: Path, *options: str) -> Recipe:
    fixed = [f"data={data}", f"storage.root={root}", "track.wandb=offline", "epochs=2", "evaluate_on=[]"]
    recipe = load_recipe("smoke", [*fixed, *options])
    recipe.run_dir.mkdir(parents=True, exist_ok=True)
    assert train(recipe, single_rank(), lambda _: None) == "finished"
    return recipe


@pytest.fixture(scope="module")
def tracked(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, list[dict[str, Any]]]:
    """A run's recipe and the records of its W&B file."""
    recipe = train_run(dataset_path, tmp_path_factory.mktemp("tracked"), "name=tracked", "track.group=pair")
    (file,) = recipe.run_dir.glob("wandb/offline-run-*/run-*.wandb")
    command = [Path(sys.executable).parent / "wandb", "leet", "inspect", "--json", file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return recipe, [json.loads(line) for line in done.stdout.splitlines()]


def find(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in records if record["type"] == kind]


def test_config_is_the_resolved_recipe_and_the_dataset(tracked: tuple[Recipe, list[dict[str, Any]]]) -> None:
    recipe, records = tracked
    config = find(records, "run")[0]["config"]["update"]
    fingerprint = open_dataset(recipe.data).fingerprint()
    assert config == {**recipe.model_dump(mode="json"), "dataset": fingerprint, "_wandb": {}}


def test_history_holds_the_rows_of_metrics_jsonl(tracked: tuple[Recipe, list[dict[str, Any]]]) -> None:
    recipe, records = tracked
    history = [
        {name: value for name, value in item["item"].items() if not name.startswith("_")}
        for item in find(records, "history")
    ]
    assert history == [pytest.approx(row) for row in read_metrics(recipe.run_dir)]
    assert [row["epoch"] for row in history] == [1, 2]
    assert "val/accuracy" in history[0]


def test_curves_are_drawn_over_epochs(tracked: tuple[Recipe, list[dict[str, Any]]]) -> None:
    steps = {
        metric.get("name", metric.get("glob_name")): metric["step_metric"] for metric in find(tracked[1], "metric")
    }
    assert steps == {"*": "epoch", "val/accuracy": "epoch"}


def test_run_is_named_and_grouped_as_the_recipe_says(tracked: tuple[Recipe, list[dict[str, Any]]]) -> None:
    run = find(tracked[1], "run")[0]
    assert (run["display_name"], run["run_group"], run["job_type"]) == ("tracked", "pair", "trial")


def test_restarts_of_a_run_carry_one_id(tracked: tuple[Recipe, list[dict[str, Any]]]) -> None:
    recipe, records = tracked
    assert find(records, "run")[0]["run_id"] == f"tracked-{recipe.fingerprint()[:8]}"


def test_run_is_closed_as_done(tracked: tuple[Recipe, list[dict[str, Any]]]) -> None:
    assert find(tracked[1], "exit")[0]["exit_code"] == 0


def test_pictures_do_not_go_to_wandb(tracked: tuple[Recipe, list[dict[str, Any]]]) -> None:
    files = [path.name for path in (tracked[0].run_dir / "wandb").rglob("*") if path.suffix in (".png", ".jpg", ".bin")]
    assert files == []


def test_wandb_that_cannot_start_does_not_stop_the_run(
    dataset_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "nonsense")
    recipe = train_run(dataset_path, tmp_path, "name=alone")
    assert [row["epoch"] for row in read_metrics(recipe.run_dir)] == [1, 2]
    assert [message for message in caplog.messages if message.startswith("W&B does not record this run: ")]


def test_file_in_the_place_of_the_wandb_folder_does_not_stop_the_run(dataset_path: Path, tmp_path: Path) -> None:
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "wandb").touch()
    recipe = train_run(dataset_path, tmp_path, "name=blocked")
    assert [row["epoch"] for row in read_metrics(recipe.run_dir)] == [1, 2]


def test_disabled_tracking_leaves_no_trace(dataset_path: Path, tmp_path: Path) -> None:
    recipe = train_run(dataset_path, tmp_path, "name=quiet", "track.wandb=disabled")
    assert not (recipe.run_dir / "wandb").exists()


@pytest.mark.parametrize(
    ("option", "environment", "mode"),
    [
        ("auto", {}, "offline"),
        ("auto", {"WANDB_API_KEY": "k"}, "online"),
        ("offline", {"WANDB_API_KEY": "k"}, "offline"),
        ("online", {"WANDB_MODE": "disabled"}, "disabled"),
        ("disabled", {}, "disabled"),
    ],
)
def test_mode_is_that_of_the_environment_then_the_recipe_then_the_key(
    option: str, environment: dict[str, str], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert choose_mode(TrackOptions.model_validate({"wandb": option})) == mode
