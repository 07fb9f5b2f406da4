"""A real sweep on Ray Tune: screened with ASHA, confirmed with fresh seeds, compared on the test split."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from runs import run_dir

from shards.cli.ending import run_command
from shards.dataset.dataset import open_dataset
from shards.errors import Interrupted, UsageError
from trainer.contract.bundle import Bundle
from trainer.recipes.file import load_recipe
from trainer.recipes.misfit import settle_metric
from trainer.record.logbook import read_metrics
from trainer.record.run_folder import hold_folder
from tune.result.folder import claim, forget_changed
from tune.run.__main__ import main
from tune.run.check import refuse_useless
from tune.run.options import SweepOptions
from tune.run.sweep import run_sweep
from tune.space.options import Space
from tune.space.variants import Trial, make_screen_trials, make_variants
from tune.stats.compare import compare
from tune.stats.runs import read_variants
from tune.trials.table import read_table
from tune.trials.tuning import count_at_once

EPOCHS = 3
GROWING = {"start_size": 16, "from_epoch": 1, "to_epoch": 2, "multiple": 16}
# The rate decides: at 1e-9 nothing is learnt, and the log loss, which has no ties, says so after each epoch.
FACTORS: dict[str, dict[str, dict[str, Any]]] = {
    "rate": {"good": {"optim.peak_lr": 0.003}, "hopeless": {"optim.peak_lr": 1e-9, "augment.progressive": GROWING}},
    "model": {
        "tiny": {"model": "timm/test_efficientnet_gn"},
        "flipped": {"model": "timm/test_efficientnet_gn", "augment.policy": "flip"},
        "fixed": {"model": "timm/test_vit"},  # it takes pictures of one size only, so that its hopeless trial fails
    },
}
BASELINE = "rate=good_model=tiny"


@dataclass(frozen=True)
class Sweep:
    """A finished sweep: its command, folder and printed JSON."""

    command: list[str]
    folder: Path
    result: dict[str, Any]

    @property
    def arguments(self) -> list[str]:
        return self.command[3:]


def make_command(data: Path, root: Path, *options: str, **space: object) -> list[str]:
    path = root / "space.yaml"
    # One trial at a time: a stopped trial is then always one that had others to be compared with.
    content = {"factors": FACTORS, "cpus_per_trial": 4, **space}
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    fixed = [f"data={data}", f"storage.root={root}", "name=sweep", "track.wandb=disabled", "stop.metric=log_loss"]
    return [sys.executable, "-m", "tune.run", "smoke", str(path), *fixed, f"epochs={EPOCHS}", "--json", *options]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def sweep(ray_cluster: str, dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    root = tmp_path_factory.mktemp("sweeps")
    command = make_command(dataset_path, root, confirm={"top": 1, "seeds": 2})
    done = run(command)
    assert done.returncode == 3, done.stderr  # some trials failed
    assert "Traceback" not in done.stderr
    return Sweep(command, root / "sweep", json.loads(done.stdout.splitlines()[-1]))


def read_csv(folder: Path) -> list[dict[str, str]]:
    with open(folder / "table.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# the screen


def test_the_table_has_a_row_for_every_trial_that_could_train(sweep: Sweep) -> None:
    rows = read_csv(sweep.folder)
    assert {(row["rate"], row["model"]) for row in rows} == {
        (rate, model) for rate in FACTORS["rate"] for model in FACTORS["model"]
    } - {("hopeless", "fixed")}


def test_a_trial_that_cannot_train_is_named_with_its_sentence_and_costs_no_other(sweep: Sweep) -> None:
    assert set(sweep.result["failures"]) == {"rate=hopeless_model=fixed-s0"}
    text = (sweep.folder / "table.md").read_text("utf-8")
    assert "rate=hopeless_model=fixed-s0 failed: timm/test_vit has a fixed input size, 32, but augment.prog" in text


def test_asha_stops_what_learns_nothing_and_the_table_says_so(sweep: Sweep) -> None:
    stopped = [row for row in read_csv(sweep.folder) if row["status"] == "stopped early"]
    assert {row["rate"] for row in read_csv(sweep.folder) if row["status"] == "finished"} == {"good"}
    assert len([row for row in stopped if row["rate"] == "hopeless"]) == 2
    assert all(int(row["epochs"]) < EPOCHS for row in stopped)
    assert "were trained for fewer epochs" in (sweep.folder / "table.md").read_text(encoding="utf-8")
    for row in stopped:
        assert not (sweep.folder / f"trials/rate={row['rate']}_model={row['model']}-s0/snapshots").exists()


def test_no_trial_of_the_screen_is_evaluated_on_the_test_part(sweep: Sweep) -> None:
    assert list(sweep.folder.glob("trials/*/metrics.jsonl"))
    assert not list(sweep.folder.glob("trials/*/evaluation"))


# the confirmation


def test_what_is_confirmed_was_written_down_before_the_test_part_was_opened(sweep: Sweep) -> None:
    plan = json.loads((sweep.folder / "confirm.json").read_text())
    finished = [row for row in read_csv(sweep.folder) if row["status"] == "finished"]
    names = {f"rate={row['rate']}_model={row['model']}": float(row["val log_loss"]) for row in finished}
    del names[BASELINE]
    assert plan["variants"] == [BASELINE, min(names, key=lambda name: names[name])]
    assert (plan["baseline"], plan["seeds"], plan["extended"]) == (BASELINE, [1, 2], False)
    opened = [path.stat().st_mtime_ns for path in sweep.folder.glob("confirm/*/evaluation/test/*")]
    trained = [path.stat().st_mtime_ns for path in sweep.folder.glob("confirm/*/metrics.jsonl")]
    written = (sweep.folder / "confirm.json").stat().st_mtime_ns
    assert len(trained) == len({path.parts[-4] for path in sweep.folder.glob("confirm/*/evaluation/test/*")}) == 4
    assert written < min(trained) < max(trained) < min(opened)


def test_confirming_runs_have_the_whole_budget_and_seeds_of_their_own(sweep: Sweep) -> None:
    for path in sweep.folder.glob("confirm/*/recipe.yaml"):
        recipe = load_recipe(str(path))
        assert recipe.epochs == EPOCHS == len(read_metrics(path.parent))
        assert recipe.seed in (1, 2)
        assert recipe.name.endswith(f"-s{recipe.seed}")


def test_comparison_is_what_tune_compare_says_of_these_runs(sweep: Sweep) -> None:
    names = json.loads((sweep.folder / "confirm.json").read_text())["variants"]
    globs = {name: [f"{sweep.folder}/confirm/{name}-s*/evaluation/test/predictions.parquet"] for name in names}
    expected = compare(read_variants(globs), BASELINE, "log_loss").model_dump(mode="json")
    assert sweep.result["comparison"] == expected
    assert json.loads((sweep.folder / "comparison.json").read_text()) == expected
    assert [row["seeds"] for row in expected["rows"]] == [2, 2]


def test_best_run_is_chosen_on_validation_alone_and_kept_with_recipe_and_evaluation(sweep: Sweep) -> None:
    losses: dict[str, dict[str, float]] = {}
    for path in sweep.folder.glob("confirm/*"):
        value = min(row["val/log_loss"] for row in read_metrics(path))
        losses.setdefault(path.name.rpartition("-s")[0], {})[path.name] = value
    variant = min(losses, key=lambda name: sum(losses[name].values()))
    best = min(losses[variant], key=lambda name: losses[variant][name])
    assert sweep.result["best"] == best
    page = Bundle.load(sweep.folder / "best/bundle").page
    assert page == Bundle.load(sweep.folder / "confirm" / best / "bundle").page
    assert load_recipe(str(sweep.folder / "best/recipe.yaml")).name == best
    assert (sweep.folder / "best/evaluation/test/metrics.json").is_file()


# the same command again


def test_the_same_command_again_trains_nothing_and_says_the_same(
    sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in sweep.folder.glob("*/*/snapshots/*")}
    assert run_command(main, sweep.arguments) == 3
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == sweep.result
    assert {
        path for path, changed in before.items() if not path.exists() or path.stat().st_mtime_ns != changed
    } == set()


def test_another_recipe_in_the_same_folder_is_refused(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(main, [*sweep.arguments, "seed=7"]) == 2
    assert "holds a sweep of another recipe; choose another name=, or delete the sweep" in capsys.readouterr().err


def test_second_command_for_a_sweep_that_is_under_way_is_refused(
    sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    with hold_folder(sweep.folder):
        assert run_command(main, sweep.arguments) == 2
    assert f"another command is using {sweep.folder}; wait for it" in capsys.readouterr().err


def test_folder_of_other_data_or_another_space_is_refused_and_extend_takes_the_space(tmp_path: Path) -> None:
    recipe, space = load_recipe("smoke", ["data=x"]), Space(factors=FACTORS)
    claim(tmp_path, recipe, "data", space, extend=False)
    claim(tmp_path, recipe, "data", Space(factors=FACTORS, cpus_per_trial=2), extend=False)
    with pytest.raises(UsageError, match="holds trials on data that have been packed anew since"):
        claim(tmp_path, recipe, "other", space, extend=True)
    (tmp_path / "old").mkdir()
    (tmp_path / "old/sweep.yaml").write_text(f"recipe: {recipe.fingerprint()}\nspace: {{}}\n")
    with pytest.raises(UsageError, match="holds a sweep of an earlier version, whose trials have other names; choose"):
        claim(tmp_path / "old", recipe, "data", space, extend=False)
    wider = Space(factors=FACTORS | {"more": {"a": {}}})
    with pytest.raises(UsageError, match="holds a sweep of another space; --extend keeps the trials that have not"):
        claim(tmp_path, recipe, "data", wider, extend=False)
    claim(tmp_path, recipe, "data", wider, extend=True)  # the remedy
    claim(tmp_path, recipe, "data", wider, extend=False)


def test_mended_level_is_trained_anew_and_other_trials_are_kept(sweep: Sweep, tmp_path: Path) -> None:
    """The mended one had been stopped early, so that a folder without snapshots is seen as well."""
    folder = Path(shutil.copytree(sweep.folder, tmp_path / "sweep"))
    dataset = open_dataset(next(word for word in sweep.arguments if word.startswith("data=")).removeprefix("data="))
    recipe = settle_metric(load_recipe("smoke", sweep.arguments[2:-1]).with_absolute_paths(), dataset)
    assert forget_changed(list_trials(recipe, Space(factors=FACTORS), folder)) == []
    mended = {**FACTORS, "rate": {**FACTORS["rate"], "hopeless": {"optim.peak_lr": 1e-4}}}
    gone = forget_changed(list_trials(recipe, Space(factors=mended), folder))
    assert set(gone) == {"rate=hopeless_model=tiny-s0", "rate=hopeless_model=flipped-s0"}
    assert {path.name for path in (folder / "trials").iterdir()} == {
        path.name for path in (sweep.folder / "trials").iterdir()
    } - set(gone)


def list_trials(recipe: Any, space: Space, folder: Path) -> list[Trial]:
    return make_screen_trials(make_variants(recipe, space), space, folder)


def test_deleting_takes_sweeps_alone(sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    assert run_command(main, ["--delete", str(tmp_path / "photos")]) == 2
    assert "is not a sweep (it has no sweep.yaml), so nothing was deleted" in capsys.readouterr().err
    copy = shutil.copytree(sweep.folder, tmp_path / "copy")
    assert run_command(main, ["--delete", str(copy)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}


# before anything starts


def test_plan_names_every_trial_and_starts_none(
    dataset_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = make_command(dataset_path, tmp_path, "--plan", confirm={"top": 1, "seeds": 2})[3:]
    assert run_command(main, command) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [trial["name"] for trial in plan["screen"]] == [
        f"rate={rate}_model={model}-s0" for rate in FACTORS["rate"] for model in FACTORS["model"]
    ]
    refused = {trial["name"]: trial["refusal"] for trial in plan["screen"] if trial["refusal"]}
    assert list(refused) == ["rate=hopeless_model=fixed-s0"]
    assert refused["rate=hopeless_model=fixed-s0"].startswith("timm/test_vit has a fixed input size, 32")
    assert plan["screen"][0]["options"] == {"optim.peak_lr": 0.003, "model": "timm/test_efficientnet_gn"}
    assert [trial["name"][-2:] for trial in plan["confirm"]] == ["s1", "s2", "s1", "s2"]
    assert plan["time_s"] == pytest.approx(sum(trial["time_s"] for trial in plan["screen"] + plan["confirm"]))
    assert plan["disk"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["space.yaml"]
    assert run_command(main, [word for word in command if word != "--json"]) == 0
    text = capsys.readouterr().out
    assert "rate=hopeless_model=fixed-s0: cannot train: timm/test_vit has a fixed input size, 32" in text
    assert "screen: 6 trials\n" in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["smoke"], "a recipe and a space are needed"),
        (["smoke", "smoke", "--seeds", "1"], "argument --seeds: must be a whole number of at least 2, got 1"),
        (["smoke", "smoke", "--seeds", "3"], "smoke confirms nothing, which --seeds, --screen-only and --confirm-only"),
        (["smoke", "augment", "--screen-only", "--confirm-only"], "leave nothing to run; give one of them"),
    ],
)
def test_mistakes_of_the_command_are_sentences(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(main, words) == 2
    assert sentence in capsys.readouterr().err


def test_confirm_without_a_test_part_is_refused(dataset_path: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(dataset_path, tmp_path / "data"))
    manifest = json.loads((data / "dataset.json").read_text())
    del manifest["splits"]["test"]
    (data / "dataset.json").write_text(json.dumps(manifest))
    space = Space(factors={"a": {"x": {}, "y": {"epochs": 2}}}, confirm={"top": 1})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"confirm compares variants on the test split, but .* has none"):
        run_sweep(load_recipe("smoke", [f"data={data}", f"storage.root={tmp_path}"]), space)


LOSSES = {"focal": {"loss.name": "focal"}, "ce": {"loss.name": "cross_entropy"}, "bce": {"loss.name": "bce"}}


def test_sweep_none_of_whose_trials_fits_the_labels_is_refused_before_it_starts(
    multi_path: Path, tmp_path: Path
) -> None:
    recipe = load_recipe("smoke", [f"data={multi_path}", f"storage.root={tmp_path}", "name=sweep"])
    space = Space(factors={"loss": {name: LOSSES[name] for name in ("focal", "ce")}})
    with pytest.raises(UsageError, match=r"is multi-label and loss\.name=focal needs one label each"):
        run_sweep(recipe, space)
    assert not run_dir(recipe).exists()
    dataset, space = open_dataset(multi_path), Space(factors={"loss": LOSSES})
    with pytest.raises(UsageError, match=r"no trial can use level 'focal' of factor 'loss': .* Mend the level"):
        refuse_useless(list_trials(settle_metric(recipe, dataset), space, tmp_path), space)
    space = Space(factors={"loss": {"bce": LOSSES["bce"]}})
    refuse_useless(list_trials(settle_metric(recipe, dataset), space, tmp_path), space)  # the remedy


@pytest.mark.parametrize(
    ("level", "reason"),
    [
        ({"model": "timm/no_such_model"}, "no model 'timm/no_such_model'"),
        ({"freeze": ["no_layer"]}, "freeze: no parameter of timm/test_efficientnet_gn begins with 'no_layer'"),
        ({"preprocess.gray_backbone": True}, "preprocess.gray_backbone needs pictures with one channel"),
        ({"positive": "purple"}, "positive=purple"),
    ],
)
def test_level_that_no_trial_can_use_is_refused_before_any_starts(
    level: dict[str, Any], reason: str, dataset_path: Path, tmp_path: Path
) -> None:
    recipe = load_recipe("smoke", [f"data={dataset_path}", f"storage.root={tmp_path}", "name=sweep"])
    factors: dict[str, Any] = {"a": {"plain": {}, "bad": level}, "b": {"x": {}, "y": {"epochs": 2}}}
    with pytest.raises(UsageError) as caught:
        run_sweep(recipe, Space(factors=factors))
    assert str(caught.value).startswith(f"no trial can use level 'bad' of factor 'a': {reason}")
    assert not run_dir(recipe).exists()


@pytest.mark.parametrize(("metric", "best"), [("map", "high"), ("hamming_loss", "low"), ("log_loss", "low")])
def test_best_trial_is_that_of_the_better_value_whatever_the_metric(metric: str, best: str, tmp_path: Path) -> None:
    recipe = load_recipe("smoke", ["data=x", f"storage.root={tmp_path}", f"stop.metric={metric}"])
    space = Space(factors={"epochs": {"high": {"epochs": 1}, "low": {"epochs": 2}}})
    trials = list_trials(recipe, space, tmp_path)
    for trial, value in zip(trials, (0.9, 0.1), strict=True):
        trial.folder.path.mkdir(parents=True)
        row = {"epoch": 1, "samples_seen": 8, "train/time_s": 1.0, f"val/{metric}": value}
        (trial.folder.path / "metrics.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert read_table(trials).rows[0].variant == f"epochs={best}"


# stopping


@pytest.mark.slow
def test_more_seeds_add_runs_to_a_finished_sweep_and_it_says_so(sweep: Sweep, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in sweep.folder.glob("confirm/*/result.json")}
    done = run([*sweep.command, "--seeds", "3"])
    assert done.returncode == 3, done.stderr
    plan = json.loads((sweep.folder / "confirm.json").read_text())
    assert (plan["seeds"], plan["extended"]) == ([1, 2, 3], True)
    assert [row["seeds"] for row in json.loads(done.stdout.splitlines()[-1])["comparison"]["rows"]] == [3, 3]
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_ctrl_c_saves_the_trials_and_the_same_command_completes_the_sweep(
    ray_cluster: str, dataset_path: Path, tmp_path: Path
) -> None:
    command = make_command(dataset_path, tmp_path, "epochs=30")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    first = tmp_path / "sweep" / "trials" / f"{BASELINE}-s0"
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
    assert done.returncode == 3, done.stderr
    assert [row["epoch"] for row in read_metrics(first)] == list(range(1, 31))


@pytest.mark.slow
def test_limits_stop_a_sweep_that_the_same_command_completes(
    ray_cluster: str, dataset_path: Path, tmp_path: Path
) -> None:
    fixed = [f"data={dataset_path}", f"storage.root={tmp_path}", "name=sweep", "track.wandb=disabled", "epochs=40"]
    recipe = load_recipe("smoke", [*fixed, "model=timm/test_efficientnet_gn"])
    space = Space.model_validate({"factors": {"rate": {"a": {"optim.peak_lr": 0.01}}}, "cpus_per_trial": 4})
    for limit, says in (
        ({"max_disk": 1000}, r"more than the --max-disk of 1000 bytes"),
        ({"max_hours": 1e-4}, "0.0001 h"),
    ):
        with pytest.raises(
            Interrupted, match=f"^stopped .*{says}.*; the trials so far are in .*, and the same command"
        ):
            run_sweep(recipe, space, SweepOptions(**limit))
    trained = read_metrics(tmp_path / "sweep" / "trials" / "rate=a-s0")
    assert len(trained) < 40
    sweep = run_sweep(recipe, space, SweepOptions(max_disk="1GiB", max_hours=1))
    assert [row.epochs for row in sweep.table.rows] == [40]


@pytest.mark.slow
def test_trials_of_two_ranks_are_stopped_while_they_train_and_leave_nothing_behind(
    ray_cluster: str, dataset_path: Path, tmp_path: Path
) -> None:
    fixed = [f"data={dataset_path}", f"storage.root={tmp_path}", "name=sweep", "track.wandb=disabled", "epochs=3"]
    recipe = load_recipe("smoke", [*fixed, "model=timm/test_efficientnet_gn", "stop.metric=log_loss"])
    # The hopeless one is stopped long before its end, while its ranks train.
    levels = [(0.003, 3), (1e-9, 300), (0.002, 3)]
    rates = {f"r{place}": {"optim.peak_lr": rate, "epochs": epochs} for place, (rate, epochs) in enumerate(levels)}
    # More trials at a time than the cluster holds would wait for each other's ranks forever.
    narrow, wide = (
        Space.model_validate({"factors": {"rate": rates}, "ranks_per_trial": 2, "cpus_per_trial": cpus})
        for cpus in (1, 2)
    )
    assert (count_at_once(narrow), count_at_once(wide)) == (2, 1)
    before = ray.available_resources()["CPU"]
    sweep = run_sweep(recipe, wide)  # one after the other: each is compared with the first
    rows = {row.levels["rate"]: row for row in sweep.table.rows}
    assert not sweep.failures
    assert rows["r0"].status == "finished"
    assert rows["r1"].status == "stopped early"
    assert sweep.best in (rows["r0"].trial, rows["r2"].trial)
    assert rows["r1"].epochs < 300
    for row in rows.values():
        folder = tmp_path / "sweep" / "trials" / row.trial
        assert load_recipe(str(folder / "recipe.yaml")).num_ranks == 2
        assert [epoch["epoch"] for epoch in read_metrics(folder)] == list(range(1, row.epochs + 1))
    until = time.monotonic() + 60
    while ray.available_resources().get("CPU") != before and time.monotonic() < until:
        time.sleep(0.5)
    assert ray.available_resources()["CPU"] == before
