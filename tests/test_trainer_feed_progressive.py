"""Pictures that grow with the epochs: each epoch at its size, evaluation at the recipe's, what cannot grow refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from runs import run_dir

from shards.dataset.dataset import open_dataset
from shards.errors import UsageError
from trainer.contract.bundle import Bundle
from trainer.feed.stream import TrainStream
from trainer.loop.build import build_preprocess
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import Recipe
from trainer.record.logbook import read_metrics
from trainer.run.launch import launch
from trainer.weights.resolve import check_growth, resolve_recipe

GROWTH = "augment.progressive={start_size: 16, from_epoch: 0, to_epoch: 2, multiple: 8}"


def make_recipe(data: Path, *options: str) -> Recipe:
    fixed = [f"data={data}", "name=growing", "image_size=32", "epochs=3", "batch_size_global=16", "augment.crop=random"]
    return resolve_recipe(load_recipe("smoke", [*fixed, "workers=0", "track.wandb=disabled", GROWTH, *options]))


@pytest.mark.parametrize("mix", ["augment.mixup=0", "augment.cutmix=1"])
def test_each_epoch_has_pictures_of_its_own_size(dataset_path: Path, mix: str) -> None:
    recipe = make_recipe(dataset_path, mix)
    dataset = open_dataset(dataset_path)
    stream = TrainStream(dataset.split("train"), recipe, build_preprocess(recipe, dataset), single_rank())
    sizes = [{tuple(batch.images.shape[1:]) for batch in stream.iterate(epoch, 0)} for epoch in (0, 1, 2, 0)]
    stream.close()
    assert sizes == [{(3, 16, 16)}, {(3, 24, 24)}, {(3, 32, 32)}, {(3, 16, 16)}]


def test_a_run_that_grows_is_evaluated_and_served_at_full_size(
    dataset_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    forward = torch.nn.Conv2d.forward

    def watch(layer: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        if layer.in_channels == 3 and layer.training and images.device.type != "meta":
            seen.append(images.shape[-1])
        return forward(layer, images)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", watch)
    recipe = make_recipe(dataset_path, f"storage.root={tmp_path}", "launch=local")
    launch(recipe)
    assert seen == sorted(seen)
    assert set(seen) == {16, 24, 32}
    assert len(read_metrics(run_dir(recipe))) == 3
    assert Bundle.load(run_dir(recipe) / "bundle").page.preprocess.size == 32


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["image_size=16"], "start_size is 16 and image_size is 16"),
        (["epochs=2"], "to_epoch is 2 and the run's last epoch is 1"),
        (["model=vit_b_16"], "vit_b_16 has a fixed input size, 32"),
    ],
)
def test_what_cannot_grow_is_refused(dataset_path: Path, options: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_growth(make_recipe(dataset_path, *options))
