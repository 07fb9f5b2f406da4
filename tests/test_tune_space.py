"""The space of a sweep: what it makes of a recipe, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from shards.errors import UsageError
from trainer.recipes.file import load_recipe
from tune.space import SPACES, Space, load_space, make_trials

FACTORS = {
    "size": {"small": {"image_size": 32}, "large": {"image_size": 64, "optim.peak_lr": 1e-4}},
    "turned": {"no": {"augment.policy": "none"}, "yes": {"augment.policy": "square"}},
}


def make(factors: dict[str, object]) -> list[str]:
    trials = make_trials(load_recipe("smoke"), Space.model_validate({"factors": factors}), Path("/sweeps/mine"))
    return [trial.name for trial in trials]


@pytest.mark.parametrize("name", sorted(path.stem for path in SPACES.glob("*.yaml")))
def test_every_shipped_space_fits_the_recipe_of_its_name(name: str) -> None:
    trials = make_trials(load_recipe(name), load_space(name), Path("/sweeps/mine"))
    assert len(trials) == {"elpv": 6}.get(name, 8)


def test_every_combination_of_levels_is_one_trial_named_after_them() -> None:
    assert make(FACTORS) == ["small_no", "small_yes", "large_no", "large_yes"]


def test_a_trial_s_recipe_is_the_given_one_with_its_levels_changes() -> None:
    base = load_recipe("smoke", ["seed=5", "optim.weight_decay=0.1"])
    trial = make_trials(base, Space.model_validate({"factors": FACTORS}), Path("/sweeps/mine"))[3]
    recipe = trial.recipe
    assert trial.levels == {"size": "large", "turned": "yes"}
    assert (recipe.image_size, recipe.optim.peak_lr, recipe.augment.policy) == (64, 1e-4, "square")
    assert (recipe.seed, recipe.optim.weight_decay) == (5, 0.1)


def test_a_trial_is_one_rank_in_the_sweep_s_folder_and_never_sees_the_test_part() -> None:
    base = load_recipe("smoke", ["num_ranks=4", "launch=ray"])
    for trial in make_trials(base, Space.model_validate({"factors": FACTORS}), Path("/sweeps/mine")):
        assert trial.recipe.evaluate_on == []
        assert (trial.recipe.launch, trial.recipe.num_ranks) == ("local", 1)
        assert trial.folder.path == Path("/sweeps/mine/trials") / trial.name
        assert trial.recipe.track.group == "mine"


def test_factors_and_levels_are_called_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "factors:\n"
        "  on:\n    yes: &base {epochs: 1}\n    no: {<<: *base, epochs: 2}\n    ~: {}\n"
        "  0x10:\n    1.50: {freeze: []}\n    010: {augment.policy: none}\n    2024-01-02: {}\n"
    )
    space = load_space(str(path))
    assert {name: list(levels) for name, levels in space.factors.items()} == {
        "on": ["yes", "no", "~"], "0x10": ["1.50", "010", "2024-01-02"]
    }  # fmt: skip
    assert space.factors["on"]["no"] == {"epochs": 2}
    trials = make_trials(load_recipe("smoke"), space, Path("/sweeps/mine"))
    assert trials[0].levels == {"on": "yes", "0x10": "1.50"}
    assert [trial.recipe.epochs for trial in trials[2:4]] == [1, 2]


def test_an_unknown_option_of_a_level_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match=r"no option 'optim\.peek_lr': did you mean 'peak_lr'\?"):
        make({"rate": {"low": {"optim.peek_lr": 0.1}}})


def test_levels_whose_joined_names_collide_are_refused() -> None:
    with pytest.raises(UsageError, match="two trials would be named 'a_b_c'"):
        make({"one": {"a_b": {}, "a": {}}, "two": {"c": {}, "b_c": {}}})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"factors": {"rate": {}}}, "factor 'rate' has no levels"),
        ({"factors": {}}, "factors: dictionary should have at least 1 item"),
        ({"factors": FACTORS, "grace": 2}, "grace: extra inputs are not permitted"),
        ({"factors": FACTORS, "reduction_factor": 1}, "reduction_factor: input should be greater than or equal to 2"),
    ],
)
def test_a_space_that_is_not_well_formed_is_refused_by_name(tmp_path: Path, content: object, sentence: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load_space(str(path))
    assert sentence in str(caught.value)


def test_an_unknown_space_is_refused_with_the_list_of_those_there_are() -> None:
    with pytest.raises(UsageError, match="no space 'dmeo': neither a file nor one of demo, elpv, smoke"):
        load_space("dmeo")
