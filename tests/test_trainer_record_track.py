"""What reaches W&B, read back with its own tool; and that W&B cannot stop a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from runs import run_dir

from shards.dataset.dataset import Dataset, open_dataset
from shards.dataset.read import SampleReader
from shards.errors import ShardError
from shards.order.plan import sequential_refs
from trainer.contract.bundle import Bundle
from trainer.contract.preprocess import prepare
from trainer.loop.loop import Outcome
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.options.run import TrackOptions
from trainer.recipes.recipe import Recipe
from trainer.record.code import read_git_sha
from trainer.record.logbook import Numbers, read_metrics
from trainer.record.run_folder import STOP_FILE
from trainer.record.steps import read_steps
from trainer.record.track.track import Tracker
from trainer.run.job import run_rank
from trainer.weights.resolve import resolve_recipe

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

ROOT = Path(__file__).parent.parent
Record = dict[str, Any]


def make_recipe(data: Path, root: Path, *options: str) -> Recipe:
    fixed = [f"data={data}", f"storage.root={root}", "track.wandb=offline", "epochs=2", "evaluate_on=[]"]
    recipe = resolve_recipe(load_recipe("smoke", [*fixed, *options]))
    run_dir(recipe).mkdir(parents=True, exist_ok=True)
    return recipe


def train_run(data: Path, root: Path, *options: str) -> Recipe:
    recipe = make_recipe(data, root, *options)
    assert run_rank(recipe, single_rank(), lambda _: None) == "finished"
    return recipe


def read_runs(recipe: Recipe) -> list[list[Record]]:
    """The records of each W&B file of a run, in the order of its starts."""
    return [inspect("--json", file) for file in sorted(run_dir(recipe).glob("wandb/offline-run-*/run-*.wandb"))]


def inspect(*arguments: str | Path) -> list[Record]:
    command = [Path(sys.executable).parent / "wandb", "leet", "inspect", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def summarise(recipe: Recipe) -> Record:
    """The summary of the last start of a run, as W&B's own tool gathers it."""
    *_, file = sorted(run_dir(recipe).glob("wandb/offline-run-*/run-*.wandb"))
    command = [Path(sys.executable).parent / "wandb", "leet", "inspect", "--summary", "--json", file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    summary: Record = json.loads(done.stdout)["summary"]
    return summary


def find(records: list[Record], kind: str) -> list[Record]:
    return [record[kind] for record in records if record["type"] == kind]


def history(records: list[Record]) -> list[Record]:
    """The rows that were logged, without W&B's own columns and tables."""
    rows = [
        {name: value for name, value in item["item"].items() if name[0] != "_" and "_table" not in name}
        for item in find(records, "history")
    ]
    return [row for row in rows if row.keys() - {"epoch"}]  # W&B adds the epoch to rows that lack it


@dataclass(frozen=True)
class Tracked:
    recipe: Recipe
    records: list[Record]


@pytest.fixture(scope="module")
def tracked(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    """A finished run of two epochs of six steps, its model still mostly wrong, and the records of its W&B file."""
    options = ("track.group=pair", "track.tags=[quick, colours]", "track.every_steps=4", "evaluate_on=[test]")
    rate = "optim.peak_lr=1e-9"
    recipe = train_run(dataset_path, tmp_path_factory.mktemp("tracked"), "name=tracked", rate, *options)
    (records,) = read_runs(recipe)
    return Tracked(recipe, records)


def test_config_is_the_resolved_recipe_and_what_it_ran_on(tracked: Tracked) -> None:
    config = find(tracked.records, "run")[0]["config"]["update"]
    dataset = open_dataset(tracked.recipe.data)
    shards = len(list(Path(tracked.recipe.data).glob("*/*.tar")))
    facts: dict[str, Any] = {"dataset": dataset.fingerprint(), "num_shards": shards, "world_size": 1}
    facts["recipe_fingerprint"] = tracked.recipe.fingerprint()
    facts |= {"git_sha": sha} if (sha := read_git_sha()) else {}
    assert config == {**tracked.recipe.model_dump(mode="json"), **facts, "_wandb": {}}


def test_keys_of_a_store_do_not_reach_wandb(
    dataset_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = "https://key:secret@host/set?signature=x"
    recipe = make_recipe(dataset_path, tmp_path).model_copy(update={"data": data})
    monkeypatch.setattr(sys, "argv", ["run.py", "smoke", f"data={data}"])
    tracker = Tracker(recipe, run_dir(recipe), 1)
    tracker.start(open_dataset(str(dataset_path)), 0)
    tracker.close()
    (records,) = read_runs(recipe)
    assert find(records, "run")[0]["config"]["update"]["data"] == "https://host/set"
    assert find(records, "environment")[0]["args"] == ["smoke", "data=https://host/set"]
    for path in run_dir(recipe).rglob("*"):
        assert path.is_dir() or not {word for word in (b"secret", b"signature") if word in path.read_bytes()}, path
    assert sys.argv[2] == f"data={data}"


def test_history_holds_the_rows_of_both_files_in_order(tracked: Tracked) -> None:
    """Of one step a row of each: W&B has one for both."""
    rows = [*read_metrics(run_dir(tracked.recipe)), *read_steps(run_dir(tracked.recipe))]
    steps = sorted({row["step"] for row in rows})
    assert steps == [4, 6, 8, 12]
    expected = []
    for step in steps:
        parts = [row for row in rows if row["step"] == step]
        expected.append({name: value for part in parts for name, value in part.items() if not isinstance(value, str)})
    assert history(tracked.records) == [pytest.approx(row) for row in expected]


def test_rows_stand_at_the_global_step(tracked: Tracked) -> None:
    rows = [item["item"] for item in find(tracked.records, "history") if "step" in item["item"]]
    assert [row["_step"] for row in rows] == [row["step"] for row in rows]


def test_scores_are_drawn_over_epochs_and_summed_up_by_their_best(tracked: Tracked) -> None:
    metrics = {each.get("name", each.get("glob_name")): each for each in find(tracked.records, "metric")}
    assert (metrics["*"]["step_metric"], metrics["step/*"]["step_metric"]) == ("epoch", "step")
    summaries = {name: each.get("summary") for name, each in metrics.items() if name.startswith("val/")}
    lower = {"val/log_loss": {"min": True}, "val/brier": {"min": True}, "val/ece": {"min": True}}
    assert {name: summary for name, summary in summaries.items() if summary != {"max": True}} == lower
    assert summaries.keys() >= {"val/accuracy", "val/balanced_accuracy", "val/macro_f1", "val/auroc", "val/mcc"}
    assert {metrics[name]["step_metric"] for name in summaries} == {"epoch"}


def test_run_is_named_grouped_and_tagged_as_the_recipe_says(tracked: Tracked) -> None:
    run = find(tracked.records, "run")[0]
    assert (run["display_name"], run["run_group"], run["job_type"]) == ("tracked", "pair", "trial")
    assert run["tags"] == ["quick", "colours"]


def test_run_is_closed_as_done(tracked: Tracked) -> None:
    assert find(tracked.records, "exit")[0].get("exit_code", 0) == 0


def test_summary_holds_the_metrics_of_the_final_evaluation(tracked: Tracked) -> None:
    folder = run_dir(tracked.recipe) / "evaluation" / "test"
    metrics = json.loads((folder / "metrics.json").read_text())
    summary = summarise(tracked.recipe)
    names = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "auroc", "samples")
    assert {name: summary[f"test/{name}"] for name in names} == pytest.approx({name: metrics[name] for name in names})


def read_table(recipe: Recipe, name: str) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of a W&B table."""
    (path,) = run_dir(recipe).glob(f"wandb/offline-run-*/files/media/table/{name}_*.table.json")
    table = json.loads(path.read_text())
    return table["columns"], table["data"]


def test_confusion_matrix_goes_as_counts(tracked: Tracked) -> None:
    metrics = json.loads((run_dir(tracked.recipe) / "evaluation" / "test" / "metrics.json").read_text())
    classes = ["blue", "green", "red"]
    columns, rows = read_table(tracked.recipe, "test/confusion_table")
    assert columns == ["Actual", "Predicted", "nPredictions"]
    assert rows == [
        [actual, predicted, metrics["confusion"][i][j]]
        for i, actual in enumerate(classes)
        for j, predicted in enumerate(classes)
    ]


def test_roc_curves_have_the_area_that_the_metrics_say(tracked: Tracked) -> None:
    metrics = json.loads((run_dir(tracked.recipe) / "evaluation" / "test" / "metrics.json").read_text())
    columns, rows = read_table(tracked.recipe, "test/roc_table")
    assert columns == ["class", "fpr", "tpr"]
    areas = []
    for name in ("blue", "green", "red"):
        fpr, tpr = np.array([row[1:] for row in rows if row[0] == name], dtype=float).T
        areas.append(np.trapezoid(tpr, fpr))
    assert np.mean(areas) == pytest.approx(metrics["auroc"])


def test_pictures_do_not_go_to_wandb(tracked: Tracked) -> None:
    files = [path for path in (run_dir(tracked.recipe) / "wandb").rglob("*") if path.is_file()]
    assert [path for path in files if path.suffix in (".png", ".jpg", ".bin") or b"PNG" in path.read_bytes()[:4]] == []


def test_tables_wait_for_the_upload_in_the_folder_of_the_run(tracked: Tracked) -> None:
    waiting = [path.name for path in (run_dir(tracked.recipe) / "wandb" / "data").rglob("*") if path.is_file()]
    assert len(waiting) >= 3
    artifacts = find(tracked.records, "artifact")
    files = [Path(each["local_path"]) for artifact in artifacts for each in artifact["manifest"]["contents"]]
    assert {path.name for path in files} <= set(waiting)
    assert len(files) == 3


@pytest.fixture(scope="module")
def restarted(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    """A run that was interrupted after its first epoch, and gone on with; the records of both starts."""
    root = tmp_path_factory.mktemp("restarted")
    recipe = make_recipe(dataset_path, root, "name=re started?", "track.every_steps=1")

    def stop(_: Numbers) -> None:
        (run_dir(recipe) / STOP_FILE).touch()

    outcome: Outcome = run_rank(recipe, single_rank(), stop)
    assert outcome == "interrupted"
    (run_dir(recipe) / STOP_FILE).unlink()
    assert run_rank(recipe, single_rank(), lambda _: None) == "finished"
    return Tracked(recipe, [record for records in read_runs(recipe) for record in records])


def test_restarts_of_a_run_carry_one_id(restarted: Tracked) -> None:
    runs = find(restarted.records, "run")
    (name,) = {run["run_id"] for run in runs}
    assert len(runs) == 2
    assert name.startswith("re-started--")


def test_no_step_is_told_twice_by_the_starts_of_a_run(restarted: Tracked) -> None:
    assert [row["step"] for row in history(restarted.records)] == list(range(1, 13))


def test_interrupted_start_is_closed_as_such(restarted: Tracked) -> None:
    assert [each.get("exit_code", 0) for each in find(restarted.records, "exit")] == [130, 0]


def test_run_begun_anew_under_an_old_name_is_another_one(
    restarted: Tracked, dataset_path: Path, tmp_path: Path
) -> None:
    other = make_recipe(dataset_path, tmp_path, "name=re started?")
    tracker = Tracker(other, run_dir(other), 1)
    tracker.start(open_dataset(dataset_path), 0)
    tracker.close()
    assert find(read_runs(other)[0], "run")[0]["run_id"] != find(restarted.records, "run")[0]["run_id"]


def write_rows(recipe: Recipe, *rows: Numbers) -> None:
    (run_dir(recipe) / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_summary_after_a_restart_is_the_best_of_all_epochs(dataset_path: Path, tmp_path: Path) -> None:
    recipe = make_recipe(dataset_path, tmp_path, "name=best", "track.job_type=confirm")
    first = {"epoch": 1, "step": 6, "val/accuracy": 0.9, "val/log_loss": 0.2, "val/best_epoch": 1, "train/loss": 3.0}
    second = {"epoch": 2, "step": 12, "val/accuracy": 0.5, "val/log_loss": 0.7, "val/best_epoch": 1, "train/loss": 2.0}
    write_rows(recipe, first, second)
    tracker = Tracker(recipe, run_dir(recipe), 1)
    tracker.start(open_dataset(dataset_path), 0)
    tracker.log_epoch(second)
    tracker.close()
    summary = summarise(recipe)
    assert (summary["val/accuracy"], summary["val/log_loss"]) == ({"max": 0.9}, {"min": 0.2})
    assert (summary["best_epoch"], summary["train/loss"]) == (1, 2.0)
    assert find(read_runs(recipe)[0], "run")[0]["job_type"] == "confirm"


@dataclass(frozen=True)
class Shown:
    """A run whose pictures may go to W&B: where the files of its tables lie, by their path in W&B, and the worst."""

    recipe: Recipe
    files: dict[str, Path]
    columns: list[str]
    rows: list[list[Any]]


@pytest.fixture(scope="module")
def shown(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """A run of a model that learns nothing."""
    options = ("name=shown", "epochs=1", "optim.peak_lr=1e-9", "track.images=true", "evaluate_on=[test]")
    recipe = train_run(dataset_path, tmp_path_factory.mktemp("shown"), *options)
    contents = [each["manifest"]["contents"] for each in find(read_runs(recipe)[0], "artifact")]
    files = {each["path"]: Path(each["local_path"]) for listed in contents for each in listed}
    table = json.loads(files["test/worst.table.json"].read_text())
    return Shown(recipe, files, table["columns"], table["data"])


def test_worst_pictures_go_as_a_table_when_the_recipe_lets_them(shown: Shown) -> None:
    metrics = json.loads((run_dir(shown.recipe) / "evaluation" / "test" / "metrics.json").read_text())
    assert shown.columns == ["picture", "label", "prediction", "probability", "path"]
    assert len(shown.rows) == metrics["samples"] - sum(metrics["confusion"][k][k] for k in range(3)) > 0
    assert all(label != prediction for _, label, prediction, _, _ in shown.rows)
    assert [row[3] for row in shown.rows] == sorted(row[3] for row in shown.rows)
    assert all(Path(row[4]).parts[-2] == row[1] for row in shown.rows)  # test/blue/blue.0.jpg is blue


def test_picture_in_that_table_is_the_one_of_its_path_as_the_model_saw_it(shown: Shown) -> None:
    split = open_dataset(shown.recipe.data).split("test")
    spec = Bundle.load(run_dir(shown.recipe) / "bundle").page.preprocess
    refs = sequential_refs(split.counts, 0, split.num_samples)
    with SampleReader(split) as reader:
        samples = [reader.read_one(*place) for place in zip(refs.shards.tolist(), refs.rows.tolist(), strict=True)]
    stored = {sample.source: sample.data for sample in samples}
    for picture, _, _, _, path in shown.rows:
        expected = prepare(stored[path], spec).permute(1, 2, 0).numpy()
        assert np.array_equal(np.asarray(Image.open(shown.files[picture["path"]])), expected)


def log_sheet(recipe: Recipe, dataset: Dataset, path: Path) -> list[Path]:
    Image.new("RGB", (8, 8), (255, 0, 0)).save(path)
    tracker = Tracker(recipe, run_dir(recipe), 1)
    tracker.start(dataset, 0)
    tracker.log_image("augmented", path)
    tracker.close()
    return list(run_dir(recipe).glob("wandb/offline-run-*/files/media/images/augmented*.png"))


@pytest.mark.parametrize("images", [True, False])
def test_sheet_of_augmented_samples_goes_only_when_the_recipe_lets_it(
    images: bool, dataset_path: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(dataset_path, tmp_path, f"track.images={images}")
    assert len(log_sheet(recipe, open_dataset(dataset_path), tmp_path / "sheet.png")) == images


def test_refused_data_closes_the_run_as_failed(dataset_path: Path, tmp_path: Path) -> None:
    recipe = make_recipe(dataset_path, tmp_path, "name=wild", "optim.peak_lr=1e30", "model=timm/test_efficientnet")
    with pytest.raises(ShardError, match="diverged"):
        run_rank(recipe, single_rank(), lambda _: None)
    assert find(read_runs(recipe)[0], "exit")[0]["exit_code"] == 1


def test_wandb_that_cannot_start_does_not_stop_the_run(
    dataset_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "nonsense")
    recipe = train_run(dataset_path, tmp_path, "name=alone")
    assert [row["epoch"] for row in read_metrics(run_dir(recipe))] == [1, 2]
    assert [message for message in caplog.messages if message.startswith("W&B does not record this run: ")]


@pytest.mark.slow  # W&B looks for its server for 90 seconds
def test_what_a_server_that_is_away_does_not_get_is_kept_to_be_sent(
    dataset_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in {"BASE_URL": "http://127.0.0.1:9", "API_KEY": "a" * 40}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    recipe = train_run(dataset_path, tmp_path, "name=away", "track.wandb=online")
    (records,) = read_runs(recipe)
    assert [row["epoch"] for row in history(records)] == [1, 2]
    refused, kept = (message for message in caplog.messages if "W&B" in message)
    assert refused.startswith("W&B does not record this run: ")
    assert f"stored in {run_dir(recipe) / 'wandb'}; send it with `wandb sync`" in kept


@pytest.mark.slow
@pytest.mark.parametrize("place", ["wandb", "wandb-id"])
def test_obstacle_in_the_place_of_what_wandb_writes_does_not_stop_the_run(
    place: str, dataset_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "blocked").mkdir()
    if place == "wandb":
        (tmp_path / "blocked" / place).touch()
    else:
        (tmp_path / "blocked" / place).mkdir()
    recipe = train_run(dataset_path, tmp_path, "name=blocked", "evaluate_on=[test]", "track.every_steps=1")
    assert [row["epoch"] for row in read_metrics(run_dir(recipe))] == [1, 2]


KILLED = """
import os, signal, sys
from pathlib import Path
from trainer.run.job import run_rank
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.record.run_folder import RunFolder
from trainer.record.track.track import Tracker
from trainer.weights.resolve import resolve_recipe

when = sys.argv[1]
recipe = resolve_recipe(load_recipe("smoke", sys.argv[2:]))
RunFolder.of(recipe).path.mkdir(parents=True)

def kill_wandb(*_):
    for task in Path("/proc").glob("[0-9]*"):
        parent = (task / "stat").read_text().rpartition(")")[2].split()[1]
        if parent == str(os.getpid()) and b"wandb-core" in (task / "cmdline").read_bytes():
            os.kill(int(task.name), signal.SIGKILL)
            print("killed")

start = Tracker.start
def start_and_kill(*words):
    start(*words)
    assert "sklearn" not in sys.modules  # an import that W&B would like to hear of is still to come
    kill_wandb()

if when == "start":
    Tracker.start = start_and_kill
print(run_rank(recipe, single_rank(), kill_wandb if when == "epoch" else lambda _: None))
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["start", pytest.param("epoch", marks=pytest.mark.slow)])
def test_death_of_wandb_in_the_middle_does_not_stop_the_run(when: str, dataset_path: Path, tmp_path: Path) -> None:
    options = [f"data={dataset_path}", f"storage.root={tmp_path}", "name=lost", "track.wandb=offline", "epochs=2"]
    command = [sys.executable, "-c", KILLED, when, *options]
    # Of a process that tracks too, a child would inherit its service.
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stdout) == (0, "killed\nfinished\n"), done.stderr
    (told,) = [line for line in done.stderr.splitlines() if "W&B" in line or "Traceback" in line]
    assert told.startswith("W&B failed and has an incomplete record of this run: "), done.stderr


def test_disabled_tracking_leaves_no_trace(dataset_path: Path, tmp_path: Path) -> None:
    recipe = train_run(dataset_path, tmp_path, "name=quiet", "track.wandb=disabled", "evaluate_on=[test]")
    assert [path.name for path in run_dir(recipe).iterdir() if "wandb" in path.name or "tensor" in path.name] == []
    assert not (run_dir(recipe) / "steps.jsonl").exists()


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
    assert TrackOptions.model_validate({"wandb": option}).choose_wandb_mode() == mode
