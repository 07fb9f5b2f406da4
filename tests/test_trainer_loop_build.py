"""What a run starts with: which layers may be frozen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from runs import begin_as_before, save_weights

from shards.cli.ending import run_command
from shards.errors import UsageError
from trainer.loop.build import build_model
from trainer.loop.loop import train
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import ResolvedRecipe
from trainer.record.run_folder import RunFolder
from trainer.run.__main__ import main
from trainer.weights.resolve import resolve_recipe

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

MODEL = "timm/test_efficientnet"


def make_recipe(data: Path, *options: str) -> ResolvedRecipe:
    return resolve_recipe(load_recipe("smoke", [f"data={data}", f"model={MODEL}", *options]))


def run(data: Path, root: Path, *options: str) -> int:
    fixed = [f"data={data}", f"storage.root={root}", "launch=local", "epochs=1", "track.wandb=disabled"]
    return run_command(main, ["smoke", *fixed, f"model={MODEL}", *options])


RANDOM = "they stay random"
OR_LOAD = ", or give weights= that include them"
FROZEN = [
    # options, tensors that the file lacks (None: weights=none), what the sentence advises
    (("freeze=[backbone]",), None, "train them (freeze=[])"),
    (("freeze=[conv_stem]",), None, "train them (freeze=[])"),
    (("freeze=[backbone]", "freeze_epochs=1"), None, "train them (freeze=[] freeze_epochs=null)"),
    (("freeze=[conv_stem]",), ("conv_stem.weight",), "train all layers (freeze=[])"),
    (("freeze=[bn1]",), ("bn1.running_mean",), "train all layers (freeze=[])"),
    (("freeze=[classifier]",), ("classifier.weight",), "train all layers (freeze=[])"),
]


@pytest.mark.parametrize(("options", "lacks", "advice"), FROZEN)
def test_new_run_does_not_freeze_layers_that_got_no_weights(
    options: tuple[str, ...], lacks: tuple[str, ...] | None, advice: str, tmp_path: Path
) -> None:
    weights = "none" if lacks is None else save_weights(tmp_path / "w.pth", MODEL, lacks)
    recipe = make_recipe(tmp_path, f"weights={weights}", *options)
    with pytest.raises(UsageError) as caught:
        build_model(recipe, 3)
    assert RANDOM in str(caught.value)
    assert str(caught.value).endswith(advice + OR_LOAD)
    (remedy,) = re.findall(r"freeze=\[\](?: freeze_epochs=null)?", advice)
    assert build_model(make_recipe(tmp_path, f"weights={weights}", *options, *remedy.split()), 3)
    whole = save_weights(tmp_path / "whole.pth", MODEL)
    assert build_model(make_recipe(tmp_path, f"weights={whole}", *options), 3)


@pytest.mark.parametrize("lacks", ["bn1.num_batches_tracked", "classifier.weight"])
def test_layers_are_frozen_where_what_the_file_lacks_is_trained_or_not_learnt(lacks: str, tmp_path: Path) -> None:
    weights = save_weights(tmp_path / "w.pth", MODEL, (lacks,))
    assert build_model(make_recipe(tmp_path, f"weights={weights}", "freeze=[backbone]"), 3)


def test_run_that_began_with_frozen_random_layers_resumes_and_warns(
    dataset_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As one does that began before they were refused; it is `begun` here by a snapshot of the same recipe."""
    fixed = [f"storage.root={tmp_path}", "launch=local", "epochs=1", "track.wandb=disabled", "freeze=[conv_stem]"]
    for more in ("--dry-run",), ():
        assert run(dataset_path, tmp_path, *more, "freeze=[conv_stem]") == 2
        assert RANDOM in capsys.readouterr().err
    recipe = make_recipe(dataset_path, *fixed)
    begin_as_before(recipe)
    assert run(dataset_path, tmp_path, "--dry-run", "freeze=[conv_stem]") == 0
    assert f"note: freeze=[conv_stem] keeps layers as loaded, but weights=none loads nothing: {RANDOM}. The " in (
        capsys.readouterr().out
    )
    assert train(recipe, RunFolder.of(recipe), single_rank(), lambda _: None) == "finished"
