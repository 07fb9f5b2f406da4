"""The W&B dashboard of a sweep: its panels are about what runs log, and what is saved is what the files have."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from test_trainer_record_track import find, history, inspect
from test_tune_report import write_metrics
from wandb_server import ENTITY, WandbServer, run_wandb_server

import tune
from shards.cli.ending import run_command
from shards.dataset.dataset import open_dataset
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.record.run_folder import STOP_FILE
from trainer.run.job import run_rank
from trainer.weights.resolve import resolve_recipe
from tune.confirm.answers import compare_confirmed, evaluate_recipe
from tune.confirm.plan import plan_confirm
from tune.dashboard.__main__ import main
from tune.dashboard.panels import draw_options
from tune.dashboard.run import track_report
from tune.report.page import write_report
from tune.result.folder import claim
from tune.result.sweep import Sweep, list_confirmed, open_sweep
from tune.space.options import Space
from tune.space.variants import Trial, make_screen_trials, make_variants
from tune.trials.table import read_table

Record = dict[str, Any]
FACTORS = {
    "net": {"a": {}, "b.1": {"head_dropout": 0.1}},  # names of tables in W&B may have no full stop
    "turn": {"no": {"augment.policy": "none"}, "yes": {"augment.policy": "square"}},
}
NAME = "sweep=1"  # wandb-workspaces doubles the sign in filters that are texts, and refuses it in names


def train(trial: Trial, *, is_interrupted: bool = False) -> None:
    """Train a trial, maybe one that is interrupted after its first epoch and restarted."""
    recipe, stop = resolve_recipe(trial.recipe), trial.folder.path / STOP_FILE
    trial.folder.claim(recipe)
    if is_interrupted:
        assert run_rank(recipe, single_rank(), lambda _: stop.touch()) == "interrupted"
        stop.unlink()
    assert run_rank(recipe, single_rank(), lambda _: None) == "finished"


def copy_trained(source: Path, trials: list[Trial], *left: str) -> None:
    """Make the folders of trials that were not trained here; left: patterns of what the source alone has."""
    for number, trial in enumerate(trials):
        if not trial.folder.path.exists():
            shutil.copytree(source, trial.folder.path, ignore=shutil.ignore_patterns(*left))
            write_metrics(trial.folder.path, [0.5, 0.6 + number / 100], 3.0)


@pytest.fixture(scope="module")
def sweep(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A finished sweep, of which a trial of the screen and a confirming run were trained, evaluated and tracked."""
    root, dataset = tmp_path_factory.mktemp("dashboards"), open_dataset(dataset_path).fingerprint()
    options = [f"data={dataset_path}", f"storage.root={root}", f"name={NAME}", "epochs=2", "track.wandb=offline"]
    recipe = load_recipe("smoke", [*options, "track.tags=[colours]", "track.config={site: east}"])
    space = Space.model_validate({"factors": FACTORS, "confirm": {"top": 1, "seeds": 2}})
    folder, variants = root / NAME, make_variants(recipe, space)
    claim(folder, recipe, dataset, space, extend=False)
    screen = make_screen_trials(variants, space, folder)
    train(screen[0], is_interrupted=True)
    copy_trained(screen[0].folder.path, screen, "wandb*")
    plan = plan_confirm(folder, read_table(screen), variants, space, 2, dataset)
    confirm = list_confirmed(variants, plan, folder, space)
    train(confirm[0])
    evaluate_recipe(confirm[0].recipe.model_dump(mode="json"))
    copy_trained(confirm[0].folder.path, confirm, "wandb*", "eval")
    compare_confirmed(plan, confirm, read_table(confirm), folder)
    (folder / "result.json").write_text(json.dumps({"best": confirm[0].name}))
    write_report(open_sweep(folder))
    return open_sweep(folder)


@dataclass(frozen=True)
class Made:
    """What the command wrote and printed offline, and the records of one run of each job_type."""

    workspace: Record
    report: Record
    printed: dict[str, str]
    runs: dict[str, list[Record]]


def make_offline(folder: Path) -> dict[str, str]:
    """Run the command and return what it prints, by the first word of each line."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert run_command(main, [str(folder)]) == 0
    lines = [line.partition(" ") for line in out.getvalue().splitlines()]
    return {name: rest.strip() for name, _, rest in lines}


def read_run(folder: Path) -> list[Record]:
    """The records of all starts of a run."""
    files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))
    return [record for file in files for record in inspect("--json", file)]


@pytest.fixture(scope="module")
def made(sweep: Sweep) -> Made:
    printed = make_offline(sweep.folder)
    confirmed = sweep.confirm_trials[0].folder.path
    folders = {
        "trial": sweep.screen_trials[0].folder.path,
        "confirm": confirmed,
        "eval": confirmed / "eval",
        "report": sweep.folder / "dashboard",
    }
    workspace, report = (json.loads(Path(printed[name]).read_text()) for name in ("workspace", "report"))
    return Made(workspace, report, printed, {kind: read_run(folder) for kind, folder in folders.items()})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A W&B server that this process and its children have a key for."""
    with run_wandb_server() as running:
        for name, value in {"BASE_URL": running.url, "API_KEY": "a" * 40, "MODE": "online"}.items():
            monkeypatch.setenv(f"WANDB_{name}", value)
        wandb.teardown()  # it has read the environment once, for all runs of a process
        yield running
        wandb.teardown()


# runs


@pytest.mark.parametrize("kind", ["trial", "confirm", "eval", "report"])
def test_runs_are_grouped_by_the_sweep_and_carry_kind_tags_and_fingerprints(
    kind: str, made: Made, sweep: Sweep
) -> None:
    for run in find(made.runs[kind], "run"):
        assert (run["run_group"], run["job_type"]) == (NAME, kind)
        assert run["tags"] == (["colours"] if kind == "report" else ["colours", "net=a", "turn=no"])
        config = run["config"]["update"]
        assert config["dataset"] == sweep.dataset
        trial = {"trial": sweep.screen_trials, "report": [sweep]}.get(kind, sweep.confirm_trials)[0]
        assert config["recipe_fingerprint"] == resolve_recipe(trial.recipe).fingerprint() or kind == "report"
        assert config["optim"]["peak_lr"] == trial.recipe.optim.peak_lr


def test_names_are_levels_and_seed(made: Made) -> None:
    names = {kind: {run["display_name"] for run in find(records, "run")} for kind, records in made.runs.items()}
    assert names == {
        "trial": {"net=a_turn=no-s0"},
        "confirm": {"net=a_turn=no-s1"},
        "eval": {"net=a_turn=no-s1"},
        "report": {NAME},
    }


def test_restarted_trial_continues_its_run(made: Made) -> None:
    first, second = find(made.runs["trial"], "run")
    assert first["run_id"] == second["run_id"]
    assert [row["epoch"] for row in history(made.runs["trial"])] == [1, 2]


def test_evaluation_is_a_run_of_its_own_with_the_metrics_of_the_test_split(made: Made, sweep: Sweep) -> None:
    ids = {kind: {run["run_id"] for run in find(records, "run")} for kind, records in made.runs.items()}
    assert len(set.union(*ids.values())) == 4
    path = sweep.confirm_trials[0].folder.path
    metrics = json.loads((path / "evaluation/test/metrics.json").read_text())
    assert summarise(made.runs["eval"])["test/accuracy"] == pytest.approx(metrics["accuracy"])
    assert "test/confusion_table" in summarise(made.runs["eval"])


def test_last_run_has_tables_and_figures_and_is_replaced_when_made_again(
    made: Made, sweep: Sweep, tmp_path: Path
) -> None:
    logged = summarise(made.runs["report"])
    assert logged.keys() >= {"ablation", "comparison", "figure/curves", "figure/differences", "figure/speed", "answer"}
    folder = Path(shutil.copytree(sweep.folder, tmp_path / NAME))
    (before,) = (folder / "dashboard").glob("wandb/offline-run-*")
    track_report(open_sweep(folder), "offline")
    (after,) = (folder / "dashboard").glob("wandb/offline-run-*")
    (first,), (second,) = (find(read_run(place), "run") for place in (sweep.folder / "dashboard", folder / "dashboard"))
    assert before.name != after.name or first["start_time"] != second["start_time"]
    assert first["run_id"] == second["run_id"]
    (path,) = after.glob("files/media/table/comparison_*.table.json")
    table = json.loads(path.read_text())
    assert sweep.comparison is not None
    assert [row[0] for row in table["data"]] == [row.name for row in sweep.comparison.rows]
    column = table["columns"].index("test accuracy")
    assert [row[column] for row in table["data"]] == pytest.approx(
        [row.mean for row in sweep.comparison.rows], abs=1e-4
    )


# specs


def read_workspace(made: Made) -> dict[str, list[Record]]:
    """The panels of each section of the workspace."""
    return {each["name"]: each["panels"] for each in made.workspace["spec"]["section"]["panelBankConfig"]["sections"]}


def read_report(made: Made) -> dict[str, tuple[list[Record], list[Record]]]:
    """The filters and panels below each heading of the report."""
    found, title = {}, ""
    for block in made.report["spec"]["blocks"]:
        if block["type"] == "heading":
            title = block["children"][0]["text"]
        if block["type"] == "panel-grid":
            (runs,) = block["metadata"]["runSets"]
            found[title] = runs["filters"]["filters"], block["metadata"]["panelBankSectionConfig"]["panels"]
    return found


PANELS = {
    "Tables": ["Weave", "Weave"],
    "Variants": ["Run History Line Plot", "Bar Chart"],
    "Factors": ["Bar Chart", "Bar Chart"],
    "Accuracy and speed": ["Scatter Plot"],
    "Options": ["Parallel Coordinates Plot", "Parameter Importance", "Run Comparer"],
    "Waiting for data": ["Run History Line Plot", "Run History Line Plot"],
    "Confusion matrices on the test split": ["Vega2", "Vega2"],
    "Figures": ["Media Browser"],
}


def test_every_panel_is_in_workspace_and_report(made: Made) -> None:
    assert {name: [each["viewType"] for each in panels] for name, panels in read_workspace(made).items()} == PANELS
    report = {name: [each["viewType"] for each in panels] for name, (_, panels) in read_report(made).items()}
    assert report == PANELS


def test_variants_are_means_over_seeds_with_bands_and_factors_bars_with_intervals(made: Made) -> None:
    line, bars = (panel["config"] for panel in read_workspace(made)["Variants"])
    assert (line["xAxis"], line["metrics"], line["groupBy"]) == ("epoch", ["val/accuracy"], "variant.value")
    assert (line["groupAgg"], line["groupArea"]) == ("mean", "stddev")
    factors = [panel["config"] for panel in read_workspace(made)["Factors"]]
    assert [each["groupBy"] for each in factors] == ["factor/net.value", "factor/turn.value"]
    assert {(each["groupAgg"], each["groupArea"]) for each in (bars, *factors)} == {("mean", "stderr")}


def summarise(records: list[Record]) -> Record:
    """The last value of each key that a run has logged; W&B has tables and pictures as KEY._type and so on."""
    found: Record = {}
    for kind, inside in (("history", "item"), ("summary", "update")):
        for each in find(records, kind):
            found |= flatten(each[inside])
    return found | {name.removesuffix("._type"): kind for name, kind in found.items() if name.endswith("._type")}


def flatten(values: Record) -> Record:
    """Nested keys joined by full stops, beside the whole values."""
    found: Record = {}
    for name, value in values.items():
        found[name] = value
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": each for inner, each in flatten(value).items()}
    return found


def list_keys(panel: Record) -> tuple[set[str], set[str]]:
    """The keys of history or summary that a panel shows, and those of the config."""
    config = panel["config"]
    named = {*config.get("metrics", []), *config.get("mediaKeys", []), config.get("targetKey")}
    named |= {config.get(axis) for axis in ("xAxis", "yAxis")}
    named |= {column["accessor"] for column in config.get("columns", [])}
    logged = {str(name).removeprefix("summary:") for name in named - {None} if not str(name).startswith("config:")}
    configured = {str(name).removeprefix("config:") for name in named - {None} if str(name).startswith("config:")}
    configured |= {config["groupBy"]} if "groupBy" in config else set()
    if panel["viewType"] == "Vega2":
        (query,) = config["userQuery"]["queryFields"]
        logged |= {each["args"][0]["value"] for each in query["fields"] if each["name"] == "summaryTable"}
    if panel["viewType"] == "Weave":
        logged |= {find_table(config)}
    return logged, {name.replace(".value", "", 1) for name in configured}


def find_table(config: Record) -> str:
    """The key that a Weave panel picks of the runs' summaries."""
    picked = config["panel2Config"]["exp"]["fromOp"]["inputs"]["key"]["val"]
    return str(picked)


def test_every_key_of_a_panel_is_one_that_its_runs_have_logged(made: Made) -> None:
    """As in the records of real runs, each section by the kinds of runs that it is about."""
    logged = {kind: summarise(records).keys() for kind, records in made.runs.items()}
    configs = {kind: flatten(find(records, "run")[0]["config"]["update"]) for kind, records in made.runs.items()}
    seen = set()
    for filters, panels in read_report(made).values():
        kinds = filters[1]["value"]
        for panel in panels:
            keys, configured = list_keys(panel)
            seen |= keys | configured
            for kind in kinds:
                assert keys <= logged[kind], (panel["viewType"], kind)
                assert configured <= configs[kind].keys(), (panel["viewType"], kind)
    assert seen >= {"val/accuracy", "val/accuracy.max", "feed/img_s", "feed/wait_frac", "variant", "ablation"}


def test_keys_of_the_workspace_are_those_of_the_report(made: Made) -> None:
    """And so of the runs."""
    for name, panels in read_workspace(made).items():
        assert [list_keys(panel) for panel in panels] == [list_keys(panel) for panel in read_report(made)[name][1]]


def test_filters_name_the_group_as_it_is_and_the_kinds_of_a_section(made: Made) -> None:
    (runs,) = made.workspace["spec"]["section"]["runSets"]
    group, kinds = runs["filters"]["filters"]
    assert (group["key"]["name"], group["op"], group["value"]) == ("group", "=", NAME)
    assert (kinds["key"]["name"], kinds["op"]) == ("jobType", "IN")
    assert set(kinds["value"]) == made.runs.keys()
    report = {name: (filters[0]["value"], filters[1]["value"]) for name, (filters, _) in read_report(made).items()}
    assert report["Variants"] == (NAME, ["confirm"])
    assert report["Factors"] == (NAME, ["trial"])
    assert report["Confusion matrices on the test split"] == (NAME, ["report"])


def test_confirming_runs_are_not_averaged_with_trials_of_the_screen(made: Made) -> None:
    configs = {kind: find(records, "run")[0]["config"]["update"] for kind, records in made.runs.items()}
    assert (configs["trial"]["variant"], configs["trial"]["site"]) == ("net=a_turn=no", "east")
    assert configs["confirm"]["variant"] == configs["eval"]["variant"] == "net=a_turn=no, confirmed"
    assert (configs["trial"]["factor/net"], configs["confirm"]["factor/net"]) == ("a", "a, confirmed")


def test_confusion_matrices_are_a_table_a_variant_summed_over_its_seeds(made: Made, sweep: Sweep) -> None:
    assert sweep.plan is not None
    panels = read_workspace(made)["Confusion matrices on the test split"]
    assert [panel["config"]["stringSettings"]["title"] for panel in panels] == sweep.plan.variants
    for panel, variant in zip(panels, sweep.plan.variants, strict=True):
        ((key,), _) = list_keys(panel)
        (path,) = (sweep.folder / "dashboard").glob(f"wandb/offline-run-*/files/media/table/{key}_*.table.json")
        table = json.loads(path.read_text())
        folders = [trial.folder.path for trial in sweep.confirm_trials if trial.variant.name == variant]
        metrics = [json.loads((folder / "evaluation/test/metrics.json").read_text()) for folder in folders]
        assert [row[2] for row in table["data"]] == np.sum(
            [each["confusion"] for each in metrics], axis=0
        ).ravel().tolist()
        assert table["columns"] == list(panel["config"]["fieldSettings"])


def test_search_is_drawn_over_the_values_of_its_options(dataset_path: Path, tmp_path: Path) -> None:
    search = {"optim.peak_lr": {"choice": [1e-3, 1e-2]}, "augment.policy": {"choice": ["none", "flip"]}}
    space = Space.model_validate({"search": search, "searcher": "grid"})
    recipe = load_recipe("smoke", [f"data={dataset_path}", f"storage.root={tmp_path}", "name=search"])
    claim(tmp_path / "search", recipe, "f" * 64, space, extend=False)
    found = open_sweep(tmp_path / "search")
    plot = draw_options(found, "val/accuracy")[0]
    accessors = [column.accessor for column in plot._to_model().config.columns]
    assert accessors == ["config:optim.value.peak_lr", "config:augment.value.policy", "summary:val/accuracy.max"]
    config = flatten(found.screen_trials[1].recipe.describe())
    assert config["optim.peak_lr"] in (1e-3, 1e-2)
    assert found.screen_trials[1].name == "t0000-s0"


def test_screen_alone_has_a_dashboard_of_what_there_is(sweep: Sweep, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sweep.folder, tmp_path / NAME))
    for name in ("confirm.json", "comparison.json", "result.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "confirm")
    printed = make_offline(folder)
    spec = json.loads(Path(printed["workspace"]).read_text())["spec"]
    sections = {each["name"]: each["panels"] for each in spec["section"]["panelBankConfig"]["sections"]}
    assert sections.keys() == PANELS.keys() - {"Confusion matrices on the test split"}
    assert len(sections["Tables"]) == 1
    assert "confirm/" not in printed["upload"]


# upload


def test_printed_command_uploads_every_run_and_saves_what_the_files_have(
    made: Made, sweep: Sweep, server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sync, dashboard = made.printed["upload"].split(" && ")
    assert dashboard == f"WANDB_MODE=online python -m tune.dashboard {shlex.quote(str(sweep.folder))}"
    folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", sync], env=environment, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    ids = {run["run_id"] for records in made.runs.values() for run in find(records, "run")}
    assert {given["name"] for given in server.find("UpsertBucket")} == ids
    assert run_command(main, [str(sweep.folder)]) == 0
    urls = capsys.readouterr().out.splitlines()
    (workspace,), (report,) = server.find("UpsertView2"), server.find("upsertView")
    for view, name in ((workspace, "workspace"), (report, "report")):
        stored = json.loads((sweep.folder / f"dashboard/{name}.json").read_text())
        assert json.loads(view["spec"]) == stored["spec"]
        assert (view["entityName"], view["projectName"]) == (ENTITY, "shardline")
    assert (workspace["displayName"], report["displayName"]) == ("sweep-1", NAME)
    assert [url.startswith(f"{server.url}/{ENTITY}/shardline") for url in urls] == [True, True]
    assert {given["name"] for given in server.find("UpsertBucket")} == ids  # the last run has been continued
    made_again = tune.make_dashboard(sweep.folder)
    assert [view.get("id") for view in server.find("UpsertView2")] == [None, "id-of-UpsertView2"]
    assert [view["id"] for view in server.find("upsertView")] == [None, "id-of-upsertView"]
    assert made_again.upload is None


def test_server_that_refuses_is_a_sentence(
    sweep: Sweep, server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(sweep.folder, tmp_path / NAME))
    server.refused.add("UpsertView2")
    assert run_command(main, [str(folder)]) == 2
    said = capsys.readouterr().err
    assert f"W&B did not take the dashboard of {folder} (" in said
    assert "run the command again, or with WANDB_MODE=offline" in said


# refusals


def test_sweep_without_tracking_is_refused_with_a_remedy(
    dataset_path: Path,
    tmp_path: Path,
    sweep: Sweep,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [f"data={dataset_path}", f"storage.root={tmp_path}", "name=quiet"]
    for name, option, said in (
        ("quiet", "track.wandb=disabled", "the recipe disables W&B for"),
        ("untracked", "track.wandb=offline", "no run of"),
    ):
        recipe = load_recipe("smoke", [*options, f"name={name}", option])
        claim(tmp_path / name, recipe, "f" * 64, sweep.space, extend=False)
        assert run_command(main, [str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "run it with track.wandb=offline under another name=" in error
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert run_command(main, [str(sweep.folder)]) == 2
    assert f"WANDB_MODE disables W&B for {sweep.folder}" in capsys.readouterr().err
    monkeypatch.setenv("WANDB_MODE", "nonsense")
    assert run_command(main, [str(sweep.folder)]) == 2
    assert "WANDB_MODE is 'nonsense', which makes no dashboard; set it to online or offline" in capsys.readouterr().err


def test_runs_of_trials_are_linked_in_one_folder_for_a_look(made: Made, sweep: Sweep) -> None:
    assert made.printed["look"] == f"wandb leet {shlex.quote(str(sweep.folder / 'dashboard/leet'))}"
    links = {path.name for path in (sweep.folder / "dashboard/leet").iterdir() if list(path.glob("run-*.wandb"))}
    assert links == {path.name for path in sweep.folder.glob("*/*/wandb/offline-run-*")}
    assert len(links) == 3  # two starts of a trial, and a confirming run


def test_folder_that_is_no_sweep_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(main, [str(tmp_path)]) == 2
    assert "is not a sweep (it has no sweep.yaml)" in capsys.readouterr().err
