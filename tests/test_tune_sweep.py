"""A real sweep on Ray Tune with ASHA."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from runs import run_dir

from shards.cli.ending import run_command
from shards.dataset.dataset import open_dataset
from shards.errors import UsageError
from trainer.contract.bundle import Bundle
from trainer.recipes.file import load_recipe
from trainer.recipes.misfit import settle_metric
from trainer.record.logbook import read_metrics
from trainer.record.run_folder import hold_folder
from tune.run import main
from tune.space import Space, make_trials
from tune.sweep import _refuse_misfits, run_sweep
from tune.table import read_table

EPOCHS = 3
# The rate decides: at 1e-9 nothing is learnt, and the log loss, which has no ties, says so after each epoch.
FACTORS = {
    "rate": {"good": {"optim.peak_lr": 0.003}, "hopeless": {"optim.peak_lr": 1e-9}},
    "model": {
        "tiny": {"model": "timm/test_efficientnet_gn"},
        "flipped": {"model": "timm/test_efficientnet_gn", "augment.policy": "flip"},
        "missing": {"model": "timm/no_such_model"},
    },
}


@dataclass(frozen=True)
class Sweep:
    """A finished sweep: its command, folder and printed JSON."""

    command: list[str]
    folder: Path
    result: dict[str, object]

    @property
    def arguments(self) -> list[str]:
        return self.command[3:]


def make_command(data: Path, root: Path, *options: str) -> list[str]:
    space = root / "space.yaml"
    # One trial at a time: a stopped trial is then always one that had others to be compared with.
    space.write_text(yaml.safe_dump({"factors": FACTORS, "cpus_per_trial": 4}, sort_keys=False), encoding="utf-8")
    fixed = [f"data={data}", f"storage.root={root}", "name=sweep", "track.wandb=disabled", "stop.metric=log_loss"]
    return [sys.executable, "-m", "tune.run", "smoke", str(space), *fixed, f"epochs={EPOCHS}", "--json", *options]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def sweep(ray_cluster: str, dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    root = tmp_path_factory.mktemp("sweeps")
    command = make_command(dataset_path, root)
    done = run(command)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return Sweep(command, root / "sweep", json.loads(done.stdout.splitlines()[-1]))


def read_csv(folder: Path) -> list[dict[str, str]]:
    with open(folder / "table.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_table_has_a_row_for_every_trial_that_could_train(sweep: Sweep) -> None:
    rows = read_csv(sweep.folder)
    assert {(row["rate"], row["model"]) for row in rows} == {
        (rate, model) for rate in ("good", "hopeless") for model in ("tiny", "flipped")
    }


def test_a_trial_that_cannot_train_is_named_with_its_sentence_and_costs_no_other(sweep: Sweep) -> None:
    assert set(sweep.result["failures"]) == {"good_missing", "hopeless_missing"}  # type: ignore[call-overload]
    assert "good_missing did not train: no model 'timm/no_such_model'" in (sweep.folder / "table.md").read_text("utf-8")


def test_asha_stops_what_learns_nothing_and_the_table_says_so(sweep: Sweep) -> None:
    stopped = [row for row in read_csv(sweep.folder) if row["status"] == "stopped by ASHA"]
    assert {row["rate"] for row in stopped} == {"hopeless"}
    assert all(int(row["epochs"]) < EPOCHS for row in stopped)
    assert "were trained for fewer epochs" in (sweep.folder / "table.md").read_text(encoding="utf-8")


def test_the_best_bundle_is_that_of_the_best_finished_trial(sweep: Sweep) -> None:
    finished = [row for row in read_csv(sweep.folder) if row["status"] == "finished"]
    best = min(finished, key=lambda row: float(row["val log_loss"]))
    name = f"{best['rate']}_{best['model']}"
    bundle = Bundle.load(sweep.folder / "best")
    assert bundle.page == Bundle.load(sweep.folder / "trials" / name / "bundle").page
    assert bundle.page.metrics["log_loss"] == pytest.approx(float(best["val log_loss"]), abs=1e-4)


def test_no_trial_is_evaluated_on_the_test_part(sweep: Sweep) -> None:
    assert not list(sweep.folder.glob("trials/*/evaluation"))


def test_the_same_command_again_trains_nothing_and_says_the_same(sweep: Sweep) -> None:
    before = {path: path.stat().st_mtime_ns for path in sweep.folder.glob("trials/good_*/snapshots/*")}
    done = run(sweep.command)
    assert done.returncode == 0, done.stderr
    finished = [row for row in sweep.result["rows"] if row["status"] == "finished"]  # type: ignore[attr-defined]
    again = [row for row in json.loads(done.stdout.splitlines()[-1])["rows"] if row["status"] == "finished"]
    assert again[0] == finished[0]
    assert {
        path for path, changed in before.items() if not path.exists() or path.stat().st_mtime_ns != changed
    } == set()


def test_another_space_in_the_same_folder_is_refused(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(main, [*sweep.arguments, "seed=7"]) == 2
    assert "holds a sweep of another recipe or space" in capsys.readouterr().err


def test_second_command_for_a_sweep_that_is_under_way_is_refused(
    sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    with hold_folder(sweep.folder):
        assert run_command(main, sweep.arguments) == 2
    assert f"another command is using {sweep.folder}; wait for it" in capsys.readouterr().err


LOSSES = {"focal": {"loss.name": "focal"}, "ce": {"loss.name": "cross_entropy"}, "bce": {"loss.name": "bce"}}


def test_sweep_none_of_whose_trials_fits_the_labels_is_refused_before_it_starts(
    multi_path: Path, tmp_path: Path
) -> None:
    recipe = load_recipe("smoke", [f"data={multi_path}", f"storage.root={tmp_path}", "name=sweep"])
    space = Space(factors={"loss": {name: LOSSES[name] for name in ("focal", "ce")}})
    with pytest.raises(UsageError, match=r"is multi-label and loss\.name=focal needs one label each"):
        run_sweep(recipe, space, run_dir(recipe))
    assert not run_dir(recipe).exists()
    dataset = open_dataset(multi_path)
    one_fits = make_trials(settle_metric(recipe, dataset), Space(factors={"loss": LOSSES}), tmp_path)
    _refuse_misfits(one_fits, dataset)


@pytest.mark.parametrize(("metric", "best"), [("map", "high"), ("hamming_loss", "low"), ("log_loss", "low")])
def test_best_trial_is_that_of_the_better_value_whatever_the_metric(metric: str, best: str, tmp_path: Path) -> None:
    recipe = load_recipe("smoke", ["data=x", f"storage.root={tmp_path}", f"stop.metric={metric}"])
    trials = make_trials(recipe, Space(factors={"seed": {"high": {"seed": 1}, "low": {"seed": 2}}}), tmp_path)
    for trial, value in zip(trials, (0.9, 0.1), strict=True):
        trial.folder.path.mkdir(parents=True)
        row = {"epoch": 1, "samples_seen": 8, "train/time_s": 1.0, f"val/{metric}": value}
        (trial.folder.path / "metrics.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert read_table(trials, {}).rows[0].trial == best


@pytest.mark.slow
def test_ctrl_c_saves_the_trials_and_the_same_command_completes_the_sweep(
    ray_cluster: str, dataset_path: Path, tmp_path: Path
) -> None:
    command = make_command(dataset_path, tmp_path, "epochs=30")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    first = tmp_path / "sweep" / "trials" / "good_tiny"
    until = time.monotonic() + 120
    while len(read_metrics(first)) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "the same command resumes" in errors
    trained = len(read_metrics(first))
    assert 2 <= trained < 30
    done = run(command)
    assert done.returncode == 0, done.stderr
    assert [row["epoch"] for row in read_metrics(first)] == list(range(1, 31))
