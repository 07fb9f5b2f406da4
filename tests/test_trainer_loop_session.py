"""A run keeps to the version of random streams that it began with, or says what has changed since."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import begin_as_before, run_dir

from shards.dataset.dataset import open_dataset
from shards.order.purposes import VERSION
from trainer.contract.preprocess import PreprocessSpec
from trainer.feed.stream import TrainStream
from trainer.loop.loop import train
from trainer.loop.session import describe_streams
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import ResolvedRecipe
from trainer.record.ledger import read_ledger
from trainer.record.run_folder import RunFolder
from trainer.weights.resolve import resolve_recipe

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores


def make_recipe(data: Path, root: Path, *options: str) -> ResolvedRecipe:
    fixed = [f"data={data}", f"storage.root={root}", "track.wandb=disabled", "launch=local", "workers=0", "epochs=1"]
    return resolve_recipe(load_recipe("smoke", [*fixed, "ledger=true", "batch_size_global=9", *options]))


def finish(recipe: ResolvedRecipe) -> set[int]:
    """Train to the end; return the ids of all samples of the ledger."""
    run_dir(recipe).mkdir(parents=True, exist_ok=True)
    assert train(recipe, RunFolder.of(recipe), single_rank(), lambda _: None) == "finished"
    return set(read_ledger(run_dir(recipe) / "ledger")["sample_id"].to_pylist())


def list_shown(recipe: ResolvedRecipe, version: int) -> list[int]:
    """The ids of the samples of an epoch's steps, in order."""
    stream = TrainStream(
        open_dataset(recipe.data).split("train"), recipe, PreprocessSpec(size=16), single_rank(), version=version
    )
    ids = np.concatenate([batch.ids for batch in stream.iterate(0, 0)])
    stream.close()
    found: list[int] = ids.tolist()
    return found


def test_run_that_began_before_versions_shows_its_part_of_the_data_to_the_end(
    dataset_path: Path, tmp_path: Path
) -> None:
    """36 of 72 samples take part; the run's first step was taken before."""
    recipe = make_recipe(dataset_path, tmp_path, "stream.fraction=0.5")
    before, now = (list_shown(recipe, version) for version in (1, VERSION))
    assert set(before) != set(now)
    begin_as_before(recipe)
    assert finish(recipe) == set(before[9:])
    assert finish(recipe.model_copy(update={"name": "new"})) == set(now)


def test_snapshot_names_the_version_that_the_run_began_with(dataset_path: Path, tmp_path: Path) -> None:
    old = make_recipe(dataset_path, tmp_path, "limit_samples=18")
    new = old.model_copy(update={"name": "new"})
    begin_as_before(old)
    for recipe, version in ((old, 1), (new, VERSION)):
        finish(recipe)
        state = json.loads((max((run_dir(recipe) / "snapshots").iterdir()) / "state.json").read_text())
        assert state["streams"] == version


@pytest.mark.parametrize("policy", ["light", "strong"])
def test_run_that_began_when_a_policy_was_another_one_says_so(
    policy: str, dataset_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = make_recipe(dataset_path, tmp_path, f"augment.policy={policy}", "limit_samples=18")
    said = describe_streams(recipe, 1)
    assert said is not None
    assert said.startswith(f"the run started when augment.policy={policy} rotated, scaled and shifted pictures")
    begin_as_before(recipe)
    finish(recipe)
    assert [record.levelno for record in caplog.records if record.getMessage() == said] == [logging.WARNING]


@pytest.mark.parametrize(("policy", "begun"), [("light", VERSION), ("flip", 1)])
def test_nothing_is_said_where_pictures_stay_what_they_were(policy: str, begun: int, tmp_path: Path) -> None:
    assert describe_streams(make_recipe(tmp_path, tmp_path, f"augment.policy={policy}"), begun) is None
