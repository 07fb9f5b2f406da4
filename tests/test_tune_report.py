"""The page about a sweep: its numbers are those of the runs, and it says no more than they show."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import tune
from shards.cli.ending import run_command
from shards.errors import UsageError
from tests.conftest import train_smoke
from trainer.evaluate.predictions import read_predictions
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import Recipe
from tune.confirm.answers import compare_confirmed
from tune.confirm.plan import plan_confirm
from tune.report.__main__ import main
from tune.report.figures import place_values
from tune.report.findings import answer, ask, count_parameters, list_costs, measure_effects, measure_importance
from tune.result.folder import claim
from tune.result.sweep import Sweep, list_confirmed, open_sweep
from tune.space.options import Space
from tune.space.variants import make_screen_trials, make_variants
from tune.trials.table import read_table
from tune.trials.trial import FAILURE_FILE

FACTORS = {
    "net": {"a": {}, "b": {"head_dropout": 0.1}},
    "turn": {"no": {"augment.policy": "none"}, "yes": {"augment.policy": "square"}},
}
# Validation accuracy after each epoch of the screen; b with turn=no was stopped after its first.
SCREEN = {
    "net=a_turn=no": [0.5, 0.8],
    "net=a_turn=yes": [0.6, 0.84],
    "net=b_turn=no": [0.4],
    "net=b_turn=yes": [0.7, 0.9],
}
WRONG = {("net=a_turn=no", 1): 12, ("net=a_turn=no", 2): 13, ("net=b_turn=yes", 1): 1, ("net=b_turn=yes", 2): 2}
"""Of 24 test pictures."""


@pytest.fixture(scope="module")
def run(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained for an epoch, evaluated on 24 test pictures."""
    return train_smoke(dataset_path, tmp_path_factory.mktemp("reported"))


def write_metrics(folder: Path, accuracies: list[float], seconds: float) -> None:
    rows = [
        {
            "epoch": number,
            "samples_seen": 72 * number,
            "val/accuracy": value,
            "train/time_s": seconds,
        }
        for number, value in enumerate(accuracies, 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_answers(run: Path, folder: Path, wrong: int, first: int) -> None:
    """Write the run's answers as those of a run that is wrong about some pictures."""
    source = run / "evaluation/test/predictions.parquet"
    predictions, table = read_predictions(source), pq.read_table(source)
    chosen = list(range(first, first + wrong))
    for number, name in enumerate(predictions.classes):
        logits = np.where(predictions.labels == number, 2.0, 0.0)
        logits[chosen] = np.where(predictions.labels[chosen] == number, -2.0, 0.0)
        place = table.column_names.index(f"logit_{name}")
        table = table.set_column(place, f"logit_{name}", pa.array(logits.astype(np.float32)))
    (folder / "evaluation/test").mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "evaluation/test/predictions.parquet")


def write_screen(run: Path, root: Path, data: Path, space: Space) -> Recipe:
    """Write the folder of a sweep after its screen; trials have the trained run's bundle and the values of SCREEN."""
    recipe = load_recipe("smoke", [f"data={data}", f"storage.root={root}", "name=sweep", "epochs=2"])
    claim(root / "sweep", recipe, "f" * 64, space, extend=False)
    for trial in make_screen_trials(make_variants(recipe, space), space, root / "sweep"):
        shutil.copytree(run, trial.folder.path)
        values = SCREEN[trial.variant.name]
        write_metrics(trial.folder.path, values, 3.0)
        if len(values) < 2:
            (trial.folder.path / "result.json").unlink()
    return recipe


@pytest.fixture(scope="module")
def sweep(run: Path, dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A finished sweep, whose confirming runs are wrong about 12 and 13, and about 1 and 2, of 24 pictures."""
    root = tmp_path_factory.mktemp("sweeps")
    space = Space.model_validate({"factors": FACTORS, "confirm": {"top": 1, "seeds": 2}})
    recipe = write_screen(run, root, dataset_path, space)
    folder, variants = root / "sweep", make_variants(recipe, space)
    table = read_table(make_screen_trials(variants, space, folder))
    plan = plan_confirm(folder, table, variants, space, 2, "f" * 64)
    trials = list_confirmed(variants, plan, folder, space)
    for trial in trials:
        shutil.copytree(run, trial.folder.path)
        write_metrics(trial.folder.path, [0.5, 0.75], 4.0)
        write_answers(run, trial.folder.path, WRONG[trial.variant.name, trial.recipe.seed], trial.recipe.seed)
    compare_confirmed(plan, trials, read_table(trials), folder)
    (folder / "result.json").write_text(json.dumps({"best": "net=b_turn=yes-s1"}))
    assert run_command(main, [str(folder)]) == 0
    return open_sweep(folder)


def test_plan_has_the_baseline_and_the_best_that_finished(sweep: Sweep) -> None:
    assert sweep.plan is not None
    assert sweep.plan.variants == ["net=a_turn=no", "net=b_turn=yes"]


def test_question_and_answer_stand_at_the_top(sweep: Sweep) -> None:
    page = (sweep.folder / "ablation.html").read_text(encoding="utf-8")
    head = page[: page.index("</header>")]
    assert ask(sweep) == (
        "Of 4 variants of timm/test_efficientnet_gn (net x turn), which is better than net=a_turn=no?"
    )
    points = 100 * (23 + 22 - 12 - 11) / 48
    assert answer(sweep).startswith(f"net=b_turn=yes is better than net=a_turn=no: {points:+.1f} points [")
    assert ask(sweep) in head
    assert f"{points:+.1f} points [" in head


def test_without_a_difference_the_answer_claims_none(sweep: Sweep, run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sweep.folder, tmp_path / "sweep"))
    same = open_sweep(folder)
    assert same.plan is not None
    trials = list_confirmed(same.variants, same.plan, folder, same.space)
    for trial in trials:
        write_answers(run, trial.folder.path, 4, trial.recipe.seed + 3 * (trial.variant.name[4] == "b"))
    compare_confirmed(same.plan, trials, read_table(trials), folder)
    assert answer(open_sweep(folder)) == (
        "There is no evidence that net=b_turn=yes differs from net=a_turn=no in accuracy on 24 test pictures."
    )


def test_effects_compare_levels_at_the_epoch_that_all_trials_reached(sweep: Sweep) -> None:
    """After epoch 1: net a (0.5 + 0.6) / 2, b (0.4 + 0.7) / 2; turn no (0.5 + 0.4) / 2, yes (0.6 + 0.7) / 2."""
    effects = measure_effects(sweep)
    assert effects is not None
    assert effects.epoch == 1
    found = {(each.factor, each.level): (each.mean, each.trials) for each in effects.levels}
    assert found == {
        ("net", "a"): (pytest.approx(0.55), 2),
        ("net", "b"): (pytest.approx(0.55), 2),
        ("turn", "no"): (pytest.approx(0.45), 2),
        ("turn", "yes"): (pytest.approx(0.65), 2),
    }
    # 0.5 - 0.55 - 0.45 + 0.55 and so on: each cell is 0.05 off the sum of its row and column.
    assert effects.interactions == {"net x turn": pytest.approx(0.05)}


def test_importance_is_the_share_of_the_ranks_that_an_option_explains(dataset_path: Path, tmp_path: Path) -> None:
    """Accuracy rises with the rate, whatever else; the policy is a name that explains nothing."""
    search = {"optim.peak_lr": {"choice": [1e-4, 1e-3, 1e-2]}, "augment.policy": {"choice": ["none", "flip"]}}
    space = Space.model_validate({"search": search, "searcher": "grid"})
    recipe = load_recipe("smoke", [f"data={dataset_path}", f"storage.root={tmp_path}", "name=sweep", "epochs=2"])
    claim(tmp_path / "sweep", recipe, "f" * 64, space, extend=False)
    for trial in make_screen_trials(make_variants(recipe, space), space, tmp_path / "sweep"):
        trial.folder.path.mkdir(parents=True)
        write_metrics(trial.folder.path, [0.4, 0.5 + 10 * trial.recipe.optim.peak_lr], 3.0)
    found = measure_importance(open_sweep(tmp_path / "sweep"))
    # Both trials of a rate tie, so that ranks are those of the rates alone; each policy has every rate once.
    assert found == {"optim.peak_lr": pytest.approx(1.0), "augment.policy": pytest.approx(0.0)}
    assert measure_effects(open_sweep(tmp_path / "sweep")) is None
    assert run_command(main, [str(tmp_path / "sweep")]) == 0
    page = (tmp_path / "sweep/ablation.html").read_text(encoding="utf-8")
    assert "<h2>Importance of the options</h2>" in page
    assert "No trial finished, so there is no answer." in page


def test_parallel_coordinates_place_values_by_their_scale(dataset_path: Path, tmp_path: Path) -> None:
    search = {
        "optim.peak_lr": {"loguniform": [1e-4, 1e-1]},
        "optim.name": {"choice": ["sgd", "adamw"]},
        "optim.momentum": {"quantised": [0.5, 0.9, 0.1], "when": {"optim.name": "sgd"}},
    }
    space = Space.model_validate({"search": search, "trials": 14})
    recipe = load_recipe("smoke", [f"data={dataset_path}", f"storage.root={tmp_path}", "name=sweep", "epochs=2"])
    claim(tmp_path / "sweep", recipe, "f" * 64, space, extend=False)
    for trial in make_screen_trials(make_variants(recipe, space), space, tmp_path / "sweep"):
        trial.folder.path.mkdir(parents=True)
        write_metrics(trial.folder.path, [0.4, 0.9 - abs(math.log10(trial.recipe.optim.peak_lr) + 2) / 5], 3.0)
    assert run_command(main, [str(tmp_path / "sweep")]) == 0
    assert (tmp_path / "sweep/figures/parallel.png").stat().st_size > 10_000
    pictures = {path.stem for path in (tmp_path / "sweep/figures").iterdir()}
    assert (tmp_path / "sweep/ablation.html").read_text("utf-8").count("data:image/") == len(pictures)
    heights, ticks = place_values(["0.0001", "0.01", "", "0.001"], log=True)
    assert heights.tolist() == [0.0, 1.0, pytest.approx(-0.08), 0.5]
    assert ticks == {"0.0001": 0.0, "0.01": 1.0, "0.001": 0.5}
    assert place_values(["sgd", "adamw", "sgd"], log=False)[0].tolist() == [0.0, 1.0, 0.0]
    assert place_values(["7", "7"], log=False)[0].tolist() == [0.0, 0.0]
    assert len(place_values([str(number) for number in range(99)], log=False)[1]) == 5


def test_costs_are_of_the_confirming_runs_where_there_are_some(sweep: Sweep) -> None:
    costs = list_costs(sweep)
    assert costs["net=a_turn=no"].train_s == pytest.approx(8.0)
    assert costs["net=a_turn=no"].img_s == pytest.approx(144 / 8)
    assert costs["net=a_turn=yes"].train_s == pytest.approx(6.0)
    assert "net=b_turn=no" not in costs  # it did not finish


def test_parameters_are_counted_as_torch_does(run: Path) -> None:
    from trainer.contract.bundle import Bundle

    model = Bundle.load(run / "bundle").model
    assert count_parameters(str(run / "bundle/weights.safetensors")) == sum(each.numel() for each in model.parameters())


def test_page_has_every_part_and_no_address_outside(sweep: Sweep) -> None:
    page = (sweep.folder / "ablation.html").read_text(encoding="utf-8")
    assert re.findall(r"<h2>(.*?)</h2>", page) == [
        "Comparison on the test split",
        "Screen",
        "Effects of the factors",
        "Accuracy and speed",
        "What was chosen on which data",
        "Commands",
    ]
    assert page.count("<img") == 4
    assert not re.findall(r"(?:src|href)=['\"](?!data:|#)", page)
    assert "stopped early" in page
    assert "net=b_turn=yes-s1: the best mean of validation accuracy, and the best run there" in page


def test_tables_beside_the_page_have_its_numbers(sweep: Sweep) -> None:
    with open(sweep.folder / "ablation.csv", newline="", encoding="utf-8") as file:
        base, better = csv.DictReader(file)
    assert (base["variant"], base["seeds"], base["difference"]) == ("net=a_turn=no", "2", "")
    assert float(base["test accuracy"]) == pytest.approx((12 + 11) / 48, abs=1e-4)
    assert float(better["difference"]) == pytest.approx((23 + 22 - 12 - 11) / 48, abs=1e-4)
    assert float(better["95 % from"]) > 0
    text = (sweep.folder / "ablation.md").read_text(encoding="utf-8")
    assert text.startswith(f"# sweep\n\n{ask(sweep)}\n\n{answer(sweep)}\n\n## Comparison\n\n| variant ")
    latex = (sweep.folder / "ablation.tex").read_text(encoding="utf-8")
    assert r"net=b\_turn=yes & 2 & 0.9375" in latex
    assert latex.count(r"\\") == 3


def test_screen_alone_is_reported_with_its_failures_and_claims_nothing(
    run: Path, dataset_path: Path, tmp_path: Path
) -> None:
    write_screen(run, tmp_path, dataset_path, Space.model_validate({"factors": FACTORS}))
    failed = tmp_path / "sweep/trials/net=a_turn=yes-s0"
    (failed / FAILURE_FILE).write_text("the loss is <not> finite", encoding="utf-8")
    assert run_command(main, [str(tmp_path / "sweep")]) == 0
    page = (tmp_path / "sweep/ablation.html").read_text(encoding="utf-8")
    assert "Nothing was confirmed: net=b_turn=yes has the best validation accuracy of the screen, 0.9000" in page
    assert "the loss is &lt;not&gt; finite" in page
    assert "Comparison" not in page


def test_extended_confirmation_is_said_on_the_page(sweep: Sweep, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sweep.folder, tmp_path / "sweep"))
    plan = json.loads((folder / "confirm.json").read_text())
    (folder / "confirm.json").write_text(json.dumps(plan | {"extended": True}))
    assert run_command(main, [str(folder)]) == 0
    assert "Seeds or variants were added after the test split had been read" in (folder / "ablation.html").read_text()


def test_folder_that_is_no_sweep_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(main, [str(tmp_path)]) == 2
    assert "is not a sweep (it has no sweep.yaml); name a folder such as runs/demo-sweep" in capsys.readouterr().err


def test_sweep_is_opened_with_the_recipe_as_it_was_given(sweep: Sweep) -> None:
    """Options that were not set stay unset, or a level would not get its own defaults of them."""
    said = yaml.safe_load((sweep.folder / "recipe.yaml").read_text(encoding="utf-8"))
    assert set(said["optim"]) == {"name", "peak_lr", "weight_decay"}  # those of smoke.yaml
    assert open_sweep(sweep.folder).variants[0].recipe.epochs == 2


# from Python


def test_python_opens_reports_and_compares_as_the_commands_do(sweep: Sweep) -> None:
    assert tune.open_sweep(str(sweep.folder)).comparison == sweep.comparison
    assert tune.write_report(sweep.folder) == sweep.folder / "ablation.html"
    globs = {name: f"{sweep.folder}/confirm/{name}-s*" for name in ("net=a_turn=no", "net=b_turn=yes")}
    assert tune.compare_runs(globs) == sweep.comparison
    assert tune.compare_runs(globs, metric="log_loss").metric == "log_loss"
    with pytest.raises(UsageError, match="no variants to compare"):
        tune.compare_runs({})


def test_space_from_python_is_that_of_the_file(tmp_path: Path) -> None:
    content = {"factors": FACTORS, "confirm": {"top": 1}}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert tune.load_space(content) == tune.load_space(tmp_path / "space.yaml")
    assert tune.load_space("smoke").factors
    with pytest.raises(UsageError, match=r"^a space has either factors or search"):
        tune.load_space({})
