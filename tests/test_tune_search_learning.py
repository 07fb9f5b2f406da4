"""The search that learns: what it suggests, what outlives the process, and a real sweep with it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from shards.errors import UsageError
from trainer.recipes.file import load_recipe
from tune.result.sweep import open_sweep
from tune.run.options import SweepOptions
from tune.run.sweep import run_sweep
from tune.space.file import read_space
from tune.space.options import Space
from tune.space.suggested import SUGGESTED, read_suggested
from tune.space.variants import Trial, make_screen_trial, make_searched
from tune.trials.searcher import RecipeSearcher

RANGES: dict[str, Any] = {
    "optim.peak_lr": {"loguniform": [0.0001, 1]},
    "batch_size_global": {"choice": [16, 32, 64]},
    "loss.label_smoothing": {"quantised": [0, 0.3, 0.1]},
    "optim.name": {"choice": ["sgd", "adamw"]},
    "optim.momentum": {"uniform": [0.5, 0.95], "when": {"optim.name": "sgd"}},
}


def make_space(trials: int, search: Mapping[str, Any] = RANGES) -> Space:
    return read_space({"search": dict(search), "searcher": "tpe", "trials": trials})


def make_searcher(folder: Path, space: Space, seed: int = 0) -> RecipeSearcher:
    recipe = load_recipe("smoke", [f"storage.root={folder.parent}", f"name={folder.name}", "data=x"])
    folder.mkdir(exist_ok=True)

    def make(number: int | None, values: Mapping[str, Any]) -> Trial:
        return make_screen_trial(make_searched(recipe, space, number, values), space, folder)

    assert space.trials is not None
    return RecipeSearcher(space.search, space.trials, folder, make, seed)


def run_trials(searcher: RecipeSearcher) -> Iterator[dict[str, Any]]:
    """Yield the recipes that are suggested, each with a score that is best at a rate of 0.01 and 64 pictures."""
    number = 0
    while True:
        found = searcher.suggest(f"id{number}")
        if found == "FINISHED":
            return
        assert found is not None
        recipe = found["recipe"]
        result = {"score": measure(recipe), "training_iteration": 1}
        searcher.on_trial_result(f"id{number}", result)
        searcher.on_trial_complete(f"id{number}", result)
        number += 1
        yield recipe


def measure(recipe: Mapping[str, Any]) -> float:
    return -abs(math.log10(recipe["optim"]["peak_lr"]) + 2) + recipe["batch_size_global"] / 64


def test_later_trials_are_better_than_early_ones(tmp_path: Path) -> None:
    gains = []
    for seed in range(3):
        _, *recipes = run_trials(make_searcher(tmp_path / f"s{seed}", make_space(40), seed))
        scores = [measure(recipe) for recipe in recipes]
        gains.append(sum(scores[-10:]) / 10 - sum(scores[:10]) / 10)
    assert min(gains) > 0.3  # random trials gain 0 on average


def test_the_baseline_is_first_and_every_value_is_in_its_range(tmp_path: Path) -> None:
    base, *recipes = run_trials(make_searcher(tmp_path / "s", make_space(25)))
    assert base["name"] == "recipe-s0"
    assert [recipe["name"] for recipe in recipes] == [f"t{number:04}-s0" for number in range(25)]
    for recipe in recipes:
        assert 0.0001 <= recipe["optim"]["peak_lr"] <= 1
        assert recipe["batch_size_global"] in (16, 32, 64)
        assert recipe["loss"]["label_smoothing"] in (0, 0.1, 0.2, 0.3)
    momenta = {recipe["optim"]["name"]: recipe["optim"].get("momentum") for recipe in recipes}
    assert set(momenta) == {"sgd", "adamw"}
    for row in read_suggested(tmp_path / "s"):
        assert ("optim.momentum" in row) == (row["optim.name"] == "sgd")


def test_a_resumed_search_has_the_same_trials_and_has_learnt_from_them(tmp_path: Path) -> None:
    first = make_searcher(tmp_path / "s", make_space(12))
    whole = list(run_trials(first))
    again = make_searcher(tmp_path / "s", make_space(16))  # more trials, as with --extend
    resumed = list(run_trials(again))
    assert resumed[:13] == whole
    assert len(resumed) == 17
    old, new = (searcher._optuna._ot_study.trials for searcher in (first, again))
    assert [trial.value for trial in new[:12]] == [trial.value for trial in old]
    assert [trial.params for trial in new[:12]] == [pytest.approx(trial.params, rel=1e-3) for trial in old]


def test_trials_outside_of_a_range_that_was_changed_stay_as_they_are(tmp_path: Path) -> None:
    before = list(run_trials(make_searcher(tmp_path / "s", make_space(5))))
    narrow = {**RANGES, "batch_size_global": {"choice": [64, 128]}}
    after = list(run_trials(make_searcher(tmp_path / "s", make_space(8, narrow))))
    assert after[:6] == before
    assert all(recipe["batch_size_global"] in (64, 128) for recipe in after[6:])


def test_no_trial_is_suggested_twice_and_an_exhausted_search_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = {"batch_size_global": {"choice": [16, 32]}, "freeze": {"choice": [[], ["backbone"]]}}
    recipes = list(run_trials(make_searcher(tmp_path / "s", make_space(9, small))))
    assert len(recipes) == 1 + 4
    assert len({json.dumps(row) for row in read_suggested(tmp_path / "s")}) == 4
    assert "Optuna finds no more than 4 different trials of the search" in caplog.text


def test_what_a_trial_tries_is_written_down_before_it_starts(tmp_path: Path) -> None:
    searcher = make_searcher(tmp_path / "s", make_space(3))
    searcher.suggest("base")
    assert not (tmp_path / "s" / SUGGESTED).exists()
    found = searcher.suggest("first")
    assert found is not None
    (row,) = read_suggested(tmp_path / "s")
    assert row["batch_size_global"] == found["recipe"]["batch_size_global"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"search": RANGES, "searcher": "tpe"}, "searcher: tpe needs trials, the number of trials"),
        (
            {
                "search": {
                    "optim.name": {"choice": ["sgd"], "when": {"seed2": 1}},
                    "seed2": {"choice": [1], "when": {"optim.name": "sgd"}},
                },
                "searcher": "tpe",
                "trials": 3,
            },
            "the conditions of search name each other in a circle, ",
        ),
    ],
)
def test_a_search_that_cannot_be_is_refused(content: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_space(content)


@pytest.mark.slow
def test_a_real_sweep_learns_and_a_resumed_one_runs_no_finished_trial_again(
    ray_cluster: str, dataset_path: Path, tmp_path: Path
) -> None:
    fixed = ["track.wandb=disabled", "epochs=1", "stop.metric=log_loss", "model=timm/test_efficientnet_gn"]
    recipe = load_recipe("smoke", [f"data={dataset_path}", f"storage.root={tmp_path}", "name=s", *fixed])
    # One trial at a time: each then learns from all that were before it.
    space = {"search": {"optim.peak_lr": {"loguniform": [1e-6, 0.01]}}, "searcher": "tpe", "cpus_per_trial": 4}
    sweep = run_sweep(recipe, read_space({**space, "trials": 2}))
    assert [row.status for row in sweep.table.rows] == ["finished"] * 3
    assert {row.levels["optim.peak_lr"] for row in sweep.table.rows if row.variant != "recipe"} == {
        str(row["optim.peak_lr"]) for row in read_suggested(tmp_path / "s")
    }
    files = sorted((tmp_path / "s").glob("trials/*/result.json"))
    before = [path.stat().st_mtime_ns for path in files]
    longer = run_sweep(recipe, read_space({**space, "trials": 3}), SweepOptions(extend=True))
    assert [path.stat().st_mtime_ns for path in files] == before
    assert {row.variant for row in longer.table.rows} == {"recipe", "t0000", "t0001", "t0002"}
    assert open_sweep(tmp_path / "s").best == longer.best == longer.table.rows[0].trial
