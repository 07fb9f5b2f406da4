"""The space of a sweep: what it makes of a recipe, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from shards.errors import UsageError
from trainer.recipes.file import RECIPES, load_recipe
from tune.space.file import SPACES, load_space, read_space
from tune.space.options import Screen, Space
from tune.space.variants import Trial, make_confirm_trials, make_screen_trials, make_variants

SWEEP = Path("/sweeps/mine")
FACTORS = {
    "size": {"small": {"image_size": 32}, "large": {"image_size": 64, "optim.peak_lr": 1e-4}},
    "turned": {"no": {"augment.policy": "none"}, "yes": {"augment.policy": "square"}},
}


def make(factors: Mapping[str, object], **more: object) -> list[str]:
    space = Space.model_validate({"factors": factors, **more})
    return [variant.name for variant in make_variants(load_recipe("smoke"), space)]


def screen(base: Any, **more: object) -> list[Trial]:
    space = Space.model_validate({"factors": FACTORS, **more})
    return make_screen_trials(make_variants(base, space), space, SWEEP)


# variants


@pytest.mark.parametrize("name", sorted(path.stem for path in SPACES.glob("*.yaml")))
def test_every_shipped_space_fits_a_recipe(name: str) -> None:
    recipe = load_recipe(name if (RECIPES / f"{name}.yaml").is_file() else "smoke", ["data=x"])
    variants = make_variants(recipe, load_space(name))
    assert (
        len(variants)
        == {
            "ablation": 36,
            "augment": 7,
            "backbones": 6,
            "chest_xray": 5,
            "demo": 8,
            "elpv_ablation": 18,
            "lr": 13,
            "smoke": 8,
        }[name]
    )


def test_every_combination_of_levels_is_a_variant_named_after_them() -> None:
    assert make(FACTORS) == [
        "size=small_turned=no", "size=small_turned=yes", "size=large_turned=no", "size=large_turned=yes"
    ]  # fmt: skip


def test_baseline_comes_first_and_may_be_any_combination() -> None:
    assert make(FACTORS, baseline={"size": "large"})[0] == "size=large_turned=no"
    assert sorted(make(FACTORS, baseline={"size": "large"})) == sorted(make(FACTORS))


def test_one_factor_at_a_time_starts_from_the_baseline() -> None:
    found = make(FACTORS, design="one_factor", baseline={"turned": "yes"})
    assert found == ["size=small_turned=yes", "size=large_turned=yes", "size=small_turned=no"]


def test_fraction_leaves_combinations_out_and_has_the_baseline() -> None:
    third = {"rate": {"low": {"optim.peak_lr": 1e-4}, "high": {"optim.peak_lr": 1e-2}}}
    found = make({**FACTORS, **third}, design="fractional", baseline={"rate": "high"})
    assert len(found) == 4
    assert found[0] == "size=small_turned=no_rate=high"


def test_a_trial_s_recipe_is_the_given_one_with_its_levels_changes() -> None:
    trial = screen(load_recipe("smoke", ["seed=5", "optim.weight_decay=0.1"]))[3]
    recipe = trial.recipe
    assert trial.variant.levels == {"size": "large", "turned": "yes"}
    assert (recipe.image_size, recipe.optim.peak_lr, recipe.augment.policy) == (64, 1e-4, "square")
    assert (recipe.seed, recipe.optim.weight_decay) == (5, 0.1)


def test_trials_are_named_after_variant_and_seed_and_say_to_wandb_what_they_are() -> None:
    first = screen(load_recipe("smoke", ["seed=5", "track.tags=[mine]"]))[0]
    assert first.name == "size=small_turned=no-s5"
    track = first.recipe.track
    assert (track.group, track.job_type, track.tags) == ("mine", "trial", ["mine", "size=small", "turned=no"])
    space = Space.model_validate({"factors": FACTORS})
    confirmed = make_confirm_trials(make_variants(load_recipe("smoke"), space)[:2], [1, 2], SWEEP, space)
    assert [trial.name for trial in confirmed] == [
        "size=small_turned=no-s1", "size=small_turned=no-s2", "size=small_turned=yes-s1", "size=small_turned=yes-s2"
    ]  # fmt: skip
    assert {(trial.recipe.track.job_type, trial.recipe.seed) for trial in confirmed} == {("confirm", 1), ("confirm", 2)}


def test_a_trial_is_one_rank_in_the_sweep_s_folder_and_never_sees_the_test_part() -> None:
    for trial in screen(load_recipe("smoke", ["num_ranks=4", "launch=ray"])):
        assert trial.recipe.evaluate_on == []
        assert (trial.recipe.launch, trial.recipe.num_ranks) == ("local", 1)
        assert trial.folder.path == SWEEP / "trials" / trial.name


@pytest.mark.parametrize(("budget", "epochs"), [(None, 10), (4, 4), (0.25, 2), (1, 1), (99, 10), (0.001, 1)])
def test_budget_of_the_screen_is_epochs_or_a_share_and_a_confirming_run_has_all(
    budget: int | float | None, epochs: int
) -> None:
    base = load_recipe("smoke", ["epochs=10"])
    assert {trial.recipe.epochs for trial in screen(base, screen={"budget": budget})} == {epochs}
    space = Space.model_validate({"factors": FACTORS})
    variants = make_variants(base, space)
    assert {trial.recipe.epochs for trial in make_confirm_trials(variants, [1], SWEEP, space)} == {10}
    assert Screen(budget=budget).find_epochs(10) == epochs


# the file


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
    variants = make_variants(load_recipe("smoke"), space)
    assert variants[0].levels == {"on": "yes", "0x10": "1.50"}
    assert [variant.recipe.epochs for variant in variants[2:4]] == [1, 2]


def test_an_unknown_option_of_a_level_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match=r"no option 'optim\.peek_lr': did you mean 'peak_lr'\?"):
        make({"rate": {"low": {"optim.peek_lr": 0.1}}})


def test_variants_whose_names_collide_are_refused() -> None:
    with pytest.raises(UsageError, match="two variants would be named 'a=1_b=2_b=2'"):
        make({"a": {"1_b=2": {}, "1": {}}, "b": {"2": {}, "2_b=2": {}}})


def test_variant_whose_name_no_folder_can_have_is_refused() -> None:
    with pytest.raises(UsageError, match="has a name of 251 bytes, too long for its folder; shorten names of factors"):
        make({"a": {"x" * 249: {}}})


LEVELS = {"low": {"optim.peak_lr": 0.1}, "high": {"optim.peak_lr": 1}}
MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"factors": {"rate": {}}}, "factor 'rate' has no levels"),
    ({"factors": {}}, "a space has either factors or search; give one of them"),
    ({"factors": FACTORS, "grace": 2}, "grace: extra inputs are not permitted"),
    (
        {"factors": FACTORS, "screen": {"reduction_factor": 1}},
        "reduction_factor: input should be greater than",
    ),
    (
        {"factors": FACTORS, "screen": {"budget": 1.5}},
        "a budget is a whole number of epochs, or a share below 1",
    ),
    ({"factors": FACTORS, "screen": {"budget": 0}}, "screen.budget: input should be greater than 0, got 0"),
    ({"factors": FACTORS, "confirm": {"seeds": 1}}, "confirm.seeds: input should be greater than or equal to 2"),
    ({"factors": FACTORS, "baseline": {"sise": "large"}}, "there is no factor 'sise'; did you mean 'size'?"),
    ({"factors": FACTORS, "baseline": {"size": "big"}}, "factor 'size' has no level 'big'; there are large, small"),
    ({"factors": {"a": {"x/y": {}}}}, "'x/y' cannot be a part of a folder's name; rename it, without slashes"),
    ({"factors": {"rate": LEVELS}, "generators": {}}, "generators are for design: fractional, got design: full"),
    ({"factors": {"a": {str(n): {} for n in range(4)}}, "design": "fractional"}, "2 or 3 levels, and a has 4"),
    *(
        ({"factors": {"a": {"x": {option: value}}}}, f"level 'x' of factor 'a' sets {said}, which no level may: ")
        for option, value, said in [
            ("stop.metric", "auroc", "stop.metric"),
            ("stop", {"metric": "auroc"}, "stop.metric"),
            ("data", "other", "data"),
            ("num_ranks", 2, "num_ranks"),
            ("launch", "ray", "launch"),
            ("name", "x", "name"),
            ("seed", 3, "seed"),
            ("evaluate_on", ["test"], "evaluate_on"),
            ("storage", {"root": "x"}, "storage.root"),
            ("storage.work", "x", "storage.work"),
            ("track.group", "x", "track.group"),
        ]
    ),
]


@pytest.mark.parametrize(("content", "sentence"), MISTAKES)
def test_a_space_that_is_not_well_formed_is_refused_by_name(tmp_path: Path, content: object, sentence: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load_space(str(path))
    assert sentence in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "text",
    [
        "factors:\n  a: {x: {}, y: {}, x: {epochs: 1}}\n",
        "factors:\n  x: {p: {}}\n  y: {p: {}}\n  x: {q: {}}\n",
        "factors:\n  a:\n    y: {x: 1, x: 2}\n",
    ],
)
def test_name_that_stands_twice_is_refused_where_yaml_would_keep_the_last(tmp_path: Path, text: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"'x' in line \d stands twice in one place; rename or remove one"):
        load_space(str(path))


def test_an_unknown_space_is_refused_with_the_list_of_those_there_are() -> None:
    with pytest.raises(
        UsageError, match="no space 'dmeo': neither a file nor one of ablation, augment, backbones, chest"
    ):
        load_space("dmeo")


def test_variants_with_cached_features_share_them_in_the_sweep() -> None:
    base = load_recipe("smoke", ["data=x"])
    trials = make_screen_trials(make_variants(base, load_space("backbones")), load_space("backbones"), SWEEP)
    assert {trial.recipe.storage.features for trial in trials} == {"/sweeps/mine/features"}
    assert {trial.recipe.storage.features for trial in screen(base)} == {None}
    mine = load_recipe("smoke", ["data=x", "storage.features=/mine"])
    assert (
        make_screen_trials(make_variants(mine, load_space("backbones")), load_space("backbones"), SWEEP)[
            0
        ].recipe.storage.features
        == "/mine"
    )


def test_ranks_of_a_trial_are_placed_by_the_space() -> None:
    trial = screen(load_recipe("smoke"), ranks_per_trial=4, cpus_per_trial=2, gpus_per_trial=1)[0]
    placed = trial.recipe.launch, trial.recipe.num_ranks, trial.recipe.cpus_per_rank, trial.recipe.gpus_per_rank
    assert placed == ("ray", 4, 2.0, 1.0)
    alone = screen(load_recipe("smoke"), cpus_per_trial=2)[0].recipe
    assert (alone.launch, alone.num_ranks) == ("local", 1)
    with pytest.raises(UsageError, match=r"ranks of one trial cannot share a GPU, got gpus_per_trial=0\.5 with ranks"):
        read_space({"factors": FACTORS, "ranks_per_trial": 2, "gpus_per_trial": 0.5})
    assert read_space({"factors": FACTORS, "ranks_per_trial": 1, "gpus_per_trial": 0.5})  # the remedies
    assert read_space({"factors": FACTORS, "ranks_per_trial": 2, "gpus_per_trial": 1})
