from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from shards.errors import UsageError
from trainer.recipes import meanings
from trainer.recipes.file import RECIPES, load_recipe
from trainer.recipes.meanings import MEANINGS
from trainer.recipes.options.augment import POLICIES
from trainer.recipes.options.loss import LossOptions
from trainer.recipes.options.optim import OptimOptions
from trainer.recipes.options.schedule import SCHEDULES
from trainer.recipes.recipe import PLACEMENT, Recipe
from tune.space.file import SPACES, load_space

SMOKE = "data=somewhere"


def load(*options: str) -> Recipe:
    return load_recipe("smoke", [SMOKE, *options])


def refusal(*options: str) -> str:
    with pytest.raises(UsageError) as caught:
        load(*options)
    return str(caught.value)


def test_unknown_option_is_refused_with_a_suggestion() -> None:
    sentence = refusal("epoch=3")
    assert sentence.startswith("no option 'epoch': did you mean 'epochs'? a recipe has data, name, model, weights, ")


def test_unknown_option_of_a_group_is_refused_with_a_suggestion() -> None:
    names = ", ".join(OptimOptions.model_fields)
    assert refusal("optim.peek_lr=1") == f"no option 'optim.peek_lr': did you mean 'peak_lr'? optim has {names}"


def test_unknown_option_like_no_other_is_refused_with_the_options_that_exist() -> None:
    assert refusal("loss.zzz=1") == f"no option 'loss.zzz'; loss has {', '.join(LossOptions.model_fields)}"


def test_unknown_group_is_refused_with_a_suggestion() -> None:
    assert refusal("optimiser.peak_lr=1").startswith("no option 'optimiser': did you mean 'optim'? a recipe has data, ")


@pytest.mark.parametrize(
    ("other", "ours", "value"),
    [
        ("lr", "optim.peak_lr", "0.5"),
        ("optim.lr", "optim.peak_lr", "0.5"),
        ("learning-rate", "optim.peak_lr", "0.5"),
        ("batch_size", "batch_size_global", "8"),
        ("num_epochs", "epochs", "3"),
        ("imgsz", "image_size", "96"),
        ("weight_decay", "optim.weight_decay", "0.5"),
        ("label_smoothing", "loss.label_smoothing", "0.5"),
        ("preprocess.image_size", "image_size", "96"),
        ("ema_decay", "step.ema", "0.5"),
    ],
)
def test_option_is_found_by_what_other_trainers_call_it(other: str, ours: str, value: str) -> None:
    assert refusal(f"{other}={value}").startswith(f"no option '{other}': did you mean '{ours}'? ")
    found: Any = load(f"{ours}={value}")
    for part in ours.split("."):
        found = getattr(found, part)
    assert str(found) == value


def test_every_option_that_a_hint_names_is_one() -> None:
    options = meanings.list_options(Recipe)
    groups = {option.partition(".")[0] for option in options}
    assert [meant for meant in MEANINGS if meant not in (*options, *groups)] == []
    assert [word for words in MEANINGS.values() for word in words if word in options] == []
    every = [word for words in MEANINGS.values() for word in words]
    assert len(set(every)) == len(every)


def test_unknown_option_in_a_file_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: x\nmodel: resnet18\nbatch_size: 3\n")
    with pytest.raises(UsageError, match=r"^no option 'batch_size': did you mean 'batch_size_global'\? a recipe has "):
        load_recipe(str(path))


TYPED: dict[str, tuple[str, object]] = {
    "optim.peak_lr=1e-3": ("optim.peak_lr", 0.001),
    "optim.peak_lr=5": ("optim.peak_lr", 5.0),
    "epochs=3": ("epochs", 3),
    "freeze=[conv1, layer1.0]": ("freeze", ["conv1", "layer1.0"]),
    "evaluate_on=[]": ("evaluate_on", []),
    "optim.clip_norm=null": ("optim.clip_norm", None),
    "ledger=true": ("ledger", True),
    "name=2024": ("name", "2024"),
    "amp=off": ("amp", "off"),
    "weights=none": ("weights", "none"),
    "optim={name: sgd, peak_lr: 2e-1}": ("optim.peak_lr", 0.2),
    "track.project=a=b": ("track.project", "a=b"),
}


@pytest.mark.parametrize("override", TYPED)
def test_override_has_the_type_of_its_option(override: str) -> None:
    name, expected = TYPED[override]
    value: Any = load(override)
    for part in name.split("."):
        value = getattr(value, part)
    assert (value, type(value)) == (expected, type(expected))


def test_overrides_in_one_group_keep_each_other_and_the_file() -> None:
    optim = load("optim.peak_lr=1", "optim.clip_norm=0.5").optim
    assert (optim.peak_lr, optim.clip_norm, optim.name, optim.weight_decay) == (1.0, 0.5, "adamw", 0.0005)


def test_schedule_in_one_word_takes_further_options() -> None:
    recipe = load("schedule=step-20-0.1", "schedule.warmup_epochs=2")
    assert (recipe.schedule.name, recipe.schedule.step_epochs, recipe.schedule.warmup_epochs) == ("step", 20, 2)


def test_last_override_wins() -> None:
    assert load("epochs=3", "epochs=4").epochs == 4


SENTENCES = {
    "epochs=0": "epochs: input should be greater than or equal to 1, got 0",
    "epochs=many": "epochs: input should be a valid integer, unable to parse string as an integer, got 'many'",
    "optim.peak_lr=0": "optim.peak_lr: input should be greater than 0, got 0",
    "optim.peak_lr=inf": "optim.peak_lr: input should be a finite number, got inf",
    "schedule.warmup_frac=500": "schedule.warmup_frac: input should be less than 1, got 500",
    "schedule.name=linear": f"schedule.name: the schedules are {', '.join(SCHEDULES)}, got 'linear'",
    "evaluate_on=[test, all]": "evaluate_on.1: input should be 'train', 'val' or 'test', got 'all'",
    "augment.policy=mad": f"augment.policy: the policies are {', '.join(POLICIES)}, got 'mad'",
    "augment.policy=ligth": (
        f"augment.policy: the policies are {', '.join(POLICIES)}, got 'ligth'; did you mean 'light'?"
    ),
    "augment.crop_scale=[0.5, 2]": "augment.crop_scale: a share is at most 1, got [0.5, 2]",
    "augment.crop_ratio=[2, 1]": "augment.crop_ratio: the smallest value comes first and must be above 0, got [2, 1]",
    "workers=-1": "workers: must be a number of threads, 0 or more, or auto, got -1",
    "workers=many": "workers: must be a number of threads, 0 or more, or auto, got 'many'",
    "stream.window_bytes=9 miles": (
        "stream.window_bytes: a size is a number with KiB, MiB, GiB, KB, MB or GB, for example 64MiB, got '9 miles'"
    ),
    "name=a/b": "name: a run's name must be a folder name without slashes, got 'a/b'",
    "name=..": "name: a run's name must be a folder name without slashes, got '..'",
    "epochs": "an option has the form name=value, for example epochs=5, got 'epochs'",
    "=5": "an option has the form name=value, for example epochs=5, got '=5'",
    "epochs.first=5": "'epochs' in 'epochs.first=5' is an option, not a group of options",
    "freeze_epochs=1": "freeze_epochs=1 unfreezes layers, but freeze names none; set freeze=[backbone], or "
    "leave freeze_epochs out",
    "augment.crop_scale=[0.5]": "augment.crop_scale: too few numbers, got [0.5]; give all of them",
    "seed=9223372036854775808": "seed: input should be less than 9223372036854775808, got 9223372036854775808",
    "freeze=[a": "the value '[a' is not YAML (while parsing a flow sequence); quote it",
}


@pytest.mark.parametrize("override", SENTENCES)
def test_bad_value_is_refused_in_one_sentence(override: str) -> None:
    assert refusal(override) == SENTENCES[override]


def test_recipe_without_data_says_how_to_give_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("model: resnet18\n")
    with pytest.raises(UsageError) as caught:
        load_recipe(str(path))
    assert str(caught.value) == "the recipe has no 'data'; add it to the file or give data=VALUE"


@pytest.mark.parametrize("weights", ["balanced", "effective"])
def test_classes_are_balanced_by_the_order_or_by_the_loss_and_not_by_both(weights: str) -> None:
    assert refusal("stream.order=balanced", f"loss.class_weights={weights}") == (
        f"stream.order=balanced shows each class equally often, and loss.class_weights={weights} would weight rare "
        "classes a second time; leave out one of them"
    )
    load("stream.order=balanced", "loss.class_weights=[1, 3, 1]")


def test_word_that_yaml_takes_for_another_value_is_refused_with_the_way_to_write_it() -> None:
    said = refusal("name=on")
    assert said == "name: expected text, but YAML reads True; quote it, on a command line as name='\"...\"'"
    assert load_recipe("smoke", ['name="on"']).name == "on"


def test_unknown_recipe_is_refused_with_the_shipped_ones() -> None:
    shipped = "ants_bees, chest_xray, covid_ct, demo, digits, elpv, imagenet_resnet50, posters, smoke"
    with pytest.raises(UsageError, match=f"^no recipe 'smoek': neither a file nor one of {shipped}$"):
        load_recipe("smoek")


def test_file_that_is_not_yaml_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(UsageError, match=rf"^{tmp_path}/bad\.yaml is not YAML: "):
        load_recipe(str(tmp_path / "bad.yaml"))


def test_empty_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").touch()
    with pytest.raises(UsageError, match=rf"^{tmp_path}/empty\.yaml has no options; "):
        load_recipe(str(tmp_path / "empty.yaml"))


def test_run_is_named_after_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("data: x\nmodel: resnet18\n")
    assert load_recipe(str(tmp_path / "mine.yaml")).name == "mine"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipe_loads_by_name(path: Path) -> None:
    assert load_recipe(path.stem).name == path.stem


@pytest.mark.parametrize("path", sorted(SPACES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_space_loads_by_name(path: Path) -> None:
    space = load_space(path.stem)
    assert space.factors or space.search


def test_resolved_recipe_goes_through_yaml_unchanged(tmp_path: Path) -> None:
    recipe = load("optim.clip_norm=0.3", "freeze=[conv1]", "stop.patience=2", "name=007x", "amp=off")
    recipe.write(tmp_path / "recipe.yaml")
    again = load_recipe(str(tmp_path / "recipe.yaml"))
    assert (again, again.fingerprint()) == (recipe, recipe.fingerprint())


def test_written_recipe_holds_every_option(tmp_path: Path) -> None:
    load().write(tmp_path / "recipe.yaml")
    assert set(yaml.safe_load((tmp_path / "recipe.yaml").read_text())) == set(Recipe.model_fields)


# Every option has a value here that differs from smoke's; a new option must be entered, or the test below fails.
OTHER = {
    "data": "else", "name": "other", "model": "resnet18", "weights": "w.pth", "epochs": "7", "seed": "1",
    "weights_key": "teacher", "weights_ema": "false", "allow_leftovers": "true",
    "image_size": "64", "batch_size_global": "5", "freeze": "[conv1]", "amp": "bf16", "dtype": "float64",
    "launch": "ray", "num_ranks": "2", "workers": "5", "cpus_per_rank": "2", "gpus_per_rank": "1", "ledger": "true",
    "evaluate_on": "[val]", "probes": "real", "preprocess.policy": "crop", "preprocess.resize": "40",
    "preprocess.interpolation": "bicubic", "preprocess.channels": "1", "preprocess.normalise": "none",
    "preprocess.gray_backbone": "true", "head_dropout": "0.5", "optim.name": "sgd", "optim.peak_lr": "1",
    "optim.weight_decay": "0", "optim.momentum": "0", "optim.betas": "[0.5, 0.9]", "optim.eps": "1",
    "optim.lookahead_steps": "2", "optim.lookahead_share": "0.9", "optim.layer_decay": "0.7", "optim.clip_norm": "1",
    "schedule.name": "step", "schedule.warmup_frac": "0", "schedule.warmup_epochs": "1", "schedule.final_frac": "1",
    "schedule.step_epochs": "2", "schedule.gamma": "0.5", "schedule.milestones": "[2]", "schedule.staircase": "false",
    "schedule.first_epochs": "2", "schedule.mult": "3", "schedule.start_div": "2", "schedule.end_div": "2",
    "schedule.power": "2", "schedule.factor": "0.5", "schedule.patience": "2", "schedule.threshold": "0.1",
    "augment.policy": "none", "loss.name": "bce", "loss.label_smoothing": "0.1", "loss.sample_weights": "false",
    "loss.focal_gamma": "1", "loss.focal_alpha": "0.5", "loss.class_weights": "balanced", "loss.effective_beta": "0.9",
    "loss.teacher": "runs/a/bundle", "loss.teacher_temperature": "2", "loss.teacher_share": "0.9",
    "freeze_epochs": "2", "limit_samples": "9", "augment.crop_resize": "99", "augment.crop_padding": "9",
    "augment.progressive": "{start_size: 16, to_epoch: 2}",
    "augment.backend": "torchvision", "augment.erase": "0.5", "augment.mixup": "0.2", "augment.cutmix": "1",
    "augment.pipeline": "[{op: RandomRotation, degrees: 9}]", "augment.mix_prob": "0.5", "step.accumulate": "2",
    "step.tf32": "false", "step.compile": "true", "step.sync_batch_norm": "true", "step.deterministic": "true",
    "step.ema": "0.9", "step.on_nan": "skip", "stop.mode": "min", "snapshot.keep": "all", "track.job_type": "eval",
    "track.tags": "[a]", "track.images": "true", "track.tensorboard": "true", "track.every_steps": "5",
    "stop.metric": "log_loss", "stop.patience": "3", "stop.min_delta": "1", "snapshot.every_epochs": "2",
    "snapshot.every_s": "5", "stream.lanes": "3", "stream.window_bytes": "4MiB",
    "stream.redeal": "false", "stream.order": "balanced", "stream.fraction": "0.5", "stream.decode": "fast",
    "augment.crop": "random", "augment.crop_scale": "[0.5, 1]", "augment.crop_ratio": "[1, 1]",
    "storage.cache": "/c", "storage.cache_bytes": "1GiB", "storage.deadline_s": "9", "track.wandb": "disabled",
    "track.project": "p", "track.group": "g", "storage.root": "r", "storage.work": "/w", "ray.max_failures": "9",
    "ray.max_preemptions": "9", "ray.max_start_failures": "9", "ray.max_controller_failures": "9",
    "ray.preemption_grace_s": "9", "ray.resize_s": "9", "report.images": "false",
    "cache_features": "true", "storage.features": "/f", "positive": "sick", "track.config": "{a: b}",
    "track.metrics_dir": "/m",
}  # fmt: skip


# Options that only some choices use, each beside such a choice.
BESIDE = {
    "optim.momentum": "optim.name=sgd", "optim.lookahead_steps": "optim.name=ranger",
    "augment.pipeline": "augment.policy=none", "freeze_epochs": "freeze=[backbone]",
    "cache_features": "freeze=[backbone]",
    "optim.lookahead_share": "optim.name=ranger", "schedule.step_epochs": "schedule.name=step",
    "schedule.gamma": "schedule.name=step", "schedule.staircase": "schedule.name=step",
    "schedule.milestones": "schedule={name: multistep, milestones: [1]}", "schedule.first_epochs": "schedule.name=sgdr",
    "schedule.mult": "schedule.name=sgdr", "schedule.start_div": "schedule.name=one_cycle",
    "schedule.end_div": "schedule.name=one_cycle", "schedule.power": "schedule.name=polynomial",
    "schedule.factor": "schedule.name=plateau", "schedule.patience": "schedule.name=plateau",
    "schedule.threshold": "schedule.name=plateau", "loss.focal_gamma": "loss.name=focal",
    "loss.focal_alpha": "loss.name=focal", "loss.effective_beta": "loss.class_weights=effective",
    "loss.teacher_temperature": "loss.teacher=b", "loss.teacher_share": "loss.teacher=b",
}  # fmt: skip


def list_options() -> list[str]:
    tree = load().model_dump()
    return [
        f"{top}.{name}" if name else top
        for top, value in tree.items()
        for name in (value if isinstance(value, dict) else [""])
    ]


@pytest.mark.parametrize("option", list_options())
def test_fingerprint_changes_with_what_is_computed_and_not_with_where(option: str) -> None:
    assert option in OTHER, f"give {option} another value than its default in OTHER"
    beside = ["augment.policy=none"] if option == "cache_features" else []
    beside += [BESIDE[option]] if option in BESIDE else []
    recipe, other = load(*beside), load(*beside, f"{option}={OTHER[option]}")
    assert other != recipe
    assert (other.fingerprint() == recipe.fingerprint()) == (option.partition(".")[0] in PLACEMENT)


def test_placement_options_are_those_that_change_no_weight() -> None:
    assert {
        "name", "data", "allow_leftovers", "launch", "num_ranks", "workers", "cpus_per_rank", "gpus_per_rank",
        "ledger", "evaluate_on", "positive", "probes", "snapshot", "track", "report", "storage", "ray",
    } == PLACEMENT  # fmt: skip


def test_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load().epochs = 3  # type: ignore[misc]


def test_group_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load().optim.peak_lr = 3.0  # type: ignore[misc]


def test_absolute_paths_are_those_of_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").touch()
    recipe = load("weights=w.pth", "storage.root=runs").with_absolute_paths()
    assert (recipe.data, recipe.weights, recipe.storage.root) == tuple(
        str(tmp_path / name) for name in ("somewhere", "w.pth", "runs")
    )
