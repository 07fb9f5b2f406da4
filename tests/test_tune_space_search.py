"""Searches: what their ranges draw, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shards.errors import UsageError
from trainer.recipes.file import load_recipe
from tune.run.options import SweepOptions
from tune.space.file import load_space, read_space
from tune.space.options import Space
from tune.space.search import Range, draw_trials
from tune.space.variants import BASELINE, make_variants
from tune.trials.table import FINISHED, Row, Table, tabulate

RATES = {"optim.peak_lr": {"loguniform": [1e-4, 1e-1]}}


def draw(content: dict[str, Any], count: int = 4000) -> list[Any]:
    each, rng = Range.model_validate(content), np.random.default_rng(0)
    return [each.draw(rng) for _ in range(count)]


def test_ranges_draw_what_they_say() -> None:
    assert set(draw({"choice": ["a", "b"]}, 100)) == {"a", "b"}
    assert set(draw({"int": [2, 4]}, 100)) == {2, 3, 4}
    assert set(draw({"quantised": [0.1, 0.4, 0.1]}, 200)) == {0.1, 0.2, 0.3, 0.4}
    even = draw({"uniform": [0.2, 0.6]})
    assert 0.2 <= min(even) < 0.21 < 0.59 < max(even) <= 0.6
    assert np.mean(even) == pytest.approx(0.4, abs=0.01)
    logs = np.log10(draw({"loguniform": [1e-4, 1e-1]}))
    assert (logs.min(), logs.max()) == (pytest.approx(-4, abs=0.01), pytest.approx(-1, abs=0.01))
    assert np.mean(logs) == pytest.approx(-2.5, abs=0.05)


def test_more_trials_leave_the_first_as_they_are_and_a_seed_changes_all() -> None:
    search = Space.model_validate({"search": RATES, "trials": 9}).search
    assert draw_trials(search, 9, 0)[:3] == draw_trials(search, 3, 0)
    assert not {each["optim.peak_lr"] for each in draw_trials(search, 9, 0)} & {
        each["optim.peak_lr"] for each in draw_trials(search, 9, 1)
    }


def test_variants_are_the_recipe_and_the_trials_with_their_options() -> None:
    recipe = load_recipe("smoke", ["data=x"])
    space = read_space({"search": {**RATES, "epochs": {"int": [1, 50]}}, "trials": 5})
    base, *variants = make_variants(recipe, space)
    assert (base.name, base.recipe) == (BASELINE, recipe)
    assert [variant.name for variant in variants] == [f"t{number:04}" for number in range(5)]
    for variant in variants:
        assert variant.levels == {
            "optim.peak_lr": str(variant.recipe.optim.peak_lr), "epochs": str(variant.recipe.epochs)
        }  # fmt: skip


def test_grid_has_each_combination_once_and_conditions_hold() -> None:
    search = {
        "optim.name": {"choice": ["sgd", "adamw"]},
        "optim.momentum": {"choice": [0.8, 0.9], "when": {"optim.name": "sgd"}},
        "epochs": {"int": [1, 2]},
    }
    _, *variants = make_variants(load_recipe("smoke", ["data=x"]), read_space({"search": search, "searcher": "grid"}))
    found = sorted((each.recipe.optim.name, each.recipe.optim.momentum, each.recipe.epochs) for each in variants)
    assert found == [
        ("adamw", None, 1), ("adamw", None, 2), ("sgd", 0.8, 1), ("sgd", 0.8, 2), ("sgd", 0.9, 1), ("sgd", 0.9, 2)
    ]  # fmt: skip
    drawn = make_variants(load_recipe("smoke", ["data=x"]), read_space({"search": search, "trials": 6}))[1:]
    assert all((each.recipe.optim.momentum is None) == (each.recipe.optim.name == "adamw") for each in drawn)


def test_table_of_a_search_names_its_trials() -> None:
    rows = [
        Row("t0003-s0", "t0003", {"epochs": "4"}, FINISHED, 0.75, 1, 2, 3.0, 4.0),
        Row("recipe-s0", "recipe", {"epochs": ""}, FINISHED, 0.5, 1, 2, 3.0, 4.0),
    ]
    head, *lines = tabulate(Table("accuracy", rows, {}))
    assert head[:3] == ["variant", "epochs", "val accuracy"]
    assert [line[:3] for line in lines] == [["t0003", "4", "0.7500"], ["recipe", "", "0.5000"]]


def test_shipped_search_draws_its_trials() -> None:
    assert len(make_variants(load_recipe("smoke", ["data=x"]), load_space("lr"))) == 13


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "a space has either factors or search; give one of them"),
        ({"factors": {"a": {"b": {}}}, "search": RATES, "trials": 2}, "a space has either factors or search"),
        ({"search": RATES}, "searcher: random needs trials, the number of trials"),
        ({"search": RATES, "searcher": "grid"}, "uniform and loguniform have no grid; give choice or quantised"),
        ({"search": RATES, "trials": 0}, "trials: input should be greater than or equal to 1, got 0"),
        ({"search": RATES, "trials": 2, "design": "one_factor"}, "baseline and design are for factors"),
        (
            {"factors": {"a": {"b": {}}}, "trials": 3},
            "trials is for a search with searcher: random or tpe; leave it out",
        ),
        ({"search": {"epochs": {"int": [1, 2]}}, "trials": 3}, "has only 2 different trials, and trials: 3 are asked"),
        (
            {"search": {"seed": {"int": [1, 2]}}, "trials": 2},
            "search sets seed, which no level may: seeds are",
        ),
        ({"search": {"a": {"int": [1, 2], "uniform": [0, 1]}}, "trials": 2}, "has exactly one of choice, uniform"),
        (
            {"search": {"a": {}}, "trials": 2},
            "has exactly one of choice, uniform, loguniform, int, quantised",
        ),
        (
            {"search": {"a": {"uniform": [1, 0]}}, "trials": 2},
            "uniform goes from the lower to the higher number",
        ),
        ({"search": {"a": {"loguniform": [0, 1]}}, "trials": 2}, "loguniform needs numbers above 0, got [0"),
        (
            {"search": {"a": {"quantised": [0, 1, 2]}}, "trials": 2},
            "the step of quantised is above 0 and no wider",
        ),
        ({"search": {"a": {"choice": []}}, "trials": 2}, "choice has no values"),
        ({"search": {"a": {"int": [1, 9], "when": {"b": 1}}}, "trials": 2}, "a: when names b, which is not among"),
    ],
)
def test_mistake_in_a_search_is_a_sentence(content: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_space(content)
    assert sentence in str(caught.value)


def test_option_that_the_recipe_lacks_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match=r"no option 'optim\.peek_lr': did you mean 'peak_lr'"):
        make_variants(load_recipe("smoke"), read_space({"search": {"optim.peek_lr": {"uniform": [0, 1]}}, "trials": 1}))


def test_number_of_trials_may_be_given_with_the_command() -> None:
    search = {"search": {"optim.peak_lr": {"uniform": [0, 1]}}, "trials": 3}
    assert SweepOptions(trials=7).change(read_space(search)).trials == 7
    assert SweepOptions().change(read_space(search)).trials == 3
    factors = {"factors": {"rate": {"a": {"optim.peak_lr": 0.1}}}}
    with pytest.raises(UsageError, match="--trials is for a search with searcher: random or tpe, and this space is"):
        SweepOptions(trials=7).change(read_space(factors))
    assert SweepOptions().change(read_space(factors)).factors  # the remedy


def test_options_of_the_command_are_checked() -> None:
    assert SweepOptions(max_disk="2MiB").max_disk == 2 << 20
    for wrong in ({"max_hours": 0}, {"max_disk": "2 parsecs"}, {"max_disk": 0}):
        with pytest.raises(UsageError):
            SweepOptions(**wrong)
