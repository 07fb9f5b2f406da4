"""BatchNorm in microbatches of one picture: said where weights have statistics, refused where they have none."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import begin_as_before, save_weights

from shards.dataset.dataset import open_dataset
from shards.errors import UsageError
from trainer.feed.feed import Batch
from trainer.loop.build import build_preprocess
from trainer.loop.session import open_engine
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import ResolvedRecipe
from trainer.run.dry_run import plan_run
from trainer.step.engine import Engine
from trainer.step.norms import Microbatches
from trainer.weights.resolve import resolve_recipe

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

MODEL, WITHOUT = "timm/test_efficientnet", "timm/test_efficientnet_gn"
NUM_SAMPLES = 72


def make_recipe(data: Path, *options: str) -> ResolvedRecipe:
    fixed = [f"data={data}", f"model={MODEL}", "track.wandb=disabled", "launch=local"]
    return resolve_recipe(load_recipe("smoke", [*fixed, *options]))


def open_quietly(recipe: ResolvedRecipe, begun: int | None = None) -> Engine:
    dataset = open_dataset(recipe.data)
    engine, stream = open_engine(recipe, dataset, build_preprocess(recipe, dataset), single_rank(), begun=begun)
    stream.close()
    return engine


def describe(engine: Engine) -> str | None:
    return engine.norms.describe_single(engine.cut(1))


SINGLE = [
    # options that leave one picture a microbatch, remedies that the refusal names
    (("batch_size_global=12", "step.accumulate=12"), ("step.accumulate=6", "batch_size_global=24")),
    (("batch_size_global=13", "step.accumulate=40"), ("step.accumulate=6",)),  # a batch of 80 is more than an epoch has
    (("batch_size_global=1",), ("batch_size_global=2",)),
    (("batch_size_global=200", "limit_samples=8", "step.accumulate=9"), ("step.accumulate=4",)),
]


@pytest.mark.parametrize(("options", "remedies"), SINGLE)
def test_new_run_from_scratch_is_refused_microbatches_of_one_picture(
    options: tuple[str, ...], remedies: tuple[str, ...], dataset_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        open_quietly(make_recipe(dataset_path, *options))
    assert re.match(
        r"every microbatch has one picture \(batches of \d+(, each in \d+ microbatches)?\), so", str(caught.value)
    )
    found = re.findall(r"set ([\w.]+=\d+)", str(caught.value))
    assert tuple(found) == remedies
    for remedy in found:
        engine = open_quietly(make_recipe(dataset_path, *options, remedy))
        assert describe(engine) is None
    assert open_quietly(make_recipe(dataset_path, *options, f"model={WITHOUT}"))


def test_run_with_weights_says_in_dry_run_and_log_that_its_norms_keep_their_statistics(
    dataset_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = save_weights(tmp_path / "w.pth", MODEL)
    options = [f"weights={weights}", "batch_size_global=4", "step.accumulate=4", f"storage.root={tmp_path}"]
    note = (
        f"every microbatch has one picture (batches of 4, each in 4 microbatches), so every BatchNorm of {MODEL} "
        "stays in evaluation mode and keeps its initial statistics"
    )
    recipe = make_recipe(dataset_path, *options)
    assert note in plan_run(recipe).notes
    caplog.clear()
    open_quietly(recipe)
    assert [record.levelname for record in caplog.records if record.getMessage() == note] == ["WARNING"]


@pytest.mark.parametrize(
    ("options", "begins"),
    [
        (("batch_size_global=3", "step.accumulate=2"), "some microbatches have one picture (batches of 3, each in 2 m"),
        (("batch_size_global=4", "step.accumulate=2"), None),
        (("step.accumulate=12", f"model={WITHOUT}"), None),
    ],
)
def test_microbatches_of_one_picture_are_noted_where_some_are_and_where_norms_would_learn_of_them(
    options: tuple[str, ...], begins: str | None, dataset_path: Path
) -> None:
    said = describe(open_quietly(make_recipe(dataset_path, *options)))
    assert said is None if begins is None else said is not None and said.startswith(begins)


@pytest.mark.parametrize(("more", "learns"), [((), False), (("freeze_epochs=1",), True)])
def test_norms_that_are_frozen_to_the_end_learn_of_no_microbatch_anyway(
    more: tuple[str, ...], learns: bool, dataset_path: Path, tmp_path: Path
) -> None:
    weights = save_weights(tmp_path / "w.pth", MODEL)
    recipe = make_recipe(dataset_path, "freeze=[backbone]", f"weights={weights}", "step.accumulate=12", *more)
    assert (describe(open_quietly(recipe)) is not None) == learns


def test_run_that_began_in_microbatches_of_one_picture_resumes(dataset_path: Path, tmp_path: Path) -> None:
    recipe = make_recipe(dataset_path, "step.accumulate=12", f"storage.root={tmp_path}")
    begin_as_before(recipe)
    assert any(note.startswith("every microbatch has one picture") for note in plan_run(recipe).notes)


def test_step_that_fits_in_microbatches_of_one_picture_alone_says_so_once(
    dataset_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Memory for one picture, as far as the model is concerned."""

    def refuse_two(_module: object, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > 1:
            raise torch.OutOfMemoryError

    recipe = make_recipe(dataset_path, "batch_size_global=4")
    engine = open_quietly(recipe)
    engine.model.register_forward_pre_hook(refuse_two)
    images = torch.zeros((4, 3, 32, 32), dtype=torch.uint8)
    batch = Batch(images, torch.zeros(4, dtype=torch.int64), torch.ones(4), np.arange(4), [""] * 4)
    for number in range(2):
        engine.step(batch, 4.0, 1.0, number)
    assert engine.parts == 4
    said = [message for message in caplog.messages if message.startswith("every microbatch has one picture")]
    assert said == [describe(engine)]


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5, 13])
@pytest.mark.parametrize("parts", [1, 2, 4, 99])
@pytest.mark.parametrize("batch_size", [1, 2, 13, 64])
def test_sizes_of_microbatches_are_those_of_all_ranks(batch_size: int, parts: int, num_ranks: int) -> None:
    """Counted out: pictures are dealt to ranks and to their microbatches one by one."""
    ranks = [len(range(rank, batch_size, num_ranks)) for rank in range(num_ranks)]
    sizes = [len(range(part, size, min(parts, size))) for size in ranks for part in range(min(parts, size))]
    assert Microbatches(batch_size, num_ranks, parts).sizes == (min(sizes), max(sizes))
