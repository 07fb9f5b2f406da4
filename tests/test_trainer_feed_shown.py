"""Class weights go by the samples that an epoch can show, where a recipe shows a part of each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import make_pictures

from shards.dataset.dataset import open_dataset
from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.sources.find import find_sources
from trainer.contract.preprocess import PreprocessSpec
from trainer.feed.shown import count_weighed, read_labels
from trainer.feed.stream import TrainStream
from trainer.loop.session import open_engine
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import Recipe
from trainer.step.loss import weigh_classes
from trainer.weights.resolve import resolve_recipe

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

SIZES = {"blue": 24, "green": 10, "red": 3}
EFFECTIVE = ("loss.class_weights=effective", "loss.effective_beta=0.9")
PARTS = ["limit_samples=12", "stream.fraction=0.1", "stream.fraction=0.5"]


@pytest.fixture(scope="module")
def uneven_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 blue, 10 green and 3 red pictures for training."""
    root = tmp_path_factory.mktemp("uneven")
    pictures = make_pictures(root / "pictures", {"train": 24, "val": 2, "test": 1})
    for name, count in SIZES.items():
        for path in sorted((pictures / "train" / name).iterdir())[count:]:
            path.unlink()
    pack(find_sources(pictures), root / "shards", PackOptions(shard_bytes=40_000))
    return root / "shards"


def make_recipe(data: Path, *options: str) -> Recipe:
    return load_recipe("smoke", [f"data={data}", "workers=0", *options])


def count_shown(data: Path, recipe: Recipe) -> tuple[npt.NDArray[np.int64], int]:
    """Count the labels of all samples that the first epoch shows, and these."""
    dataset = open_dataset(data)
    split = dataset.split("train")
    stream = TrainStream(split, recipe, PreprocessSpec(size=16), single_rank())
    plan, counts, total = stream.plan(0), np.zeros(len(dataset.classes), dtype=np.int64), 0
    labels, starts = read_labels(split, stream._column), np.cumsum(split.counts) - split.counts
    for refs in plan.slices(0, 0, 1):
        for place in (starts[refs.shards] + refs.rows).tolist():
            np.add.at(counts, np.array(labels[place], dtype=np.int64).reshape(-1), 1)
            total += 1
    stream.close()
    return counts, total


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("weights", [EFFECTIVE, ("loss.class_weights=balanced",)], ids=["effective", "balanced"])
def test_weights_by_count_go_by_the_part_that_is_shown(weights: tuple[str, ...], part: str, uneven_path: Path) -> None:
    recipe, dataset = make_recipe(uneven_path, *weights, part), open_dataset(uneven_path)
    counts, total = count_weighed(dataset.split("train"), recipe)
    shown = count_shown(uneven_path, recipe)
    assert (counts.tolist(), total) == (shown[0].tolist(), shown[1])
    engine, stream = open_engine(resolve_recipe(recipe), dataset, PreprocessSpec(size=32), single_rank())
    stream.close()
    weighed = engine._loss.weigh(torch.arange(3)).numpy()
    whole, chosen = (weigh_classes(recipe.loss, each, dataset.classes) for each in (np.array([24, 10, 3]), shown[0]))
    assert weighed == pytest.approx(chosen)
    assert weighed != pytest.approx(whole)


@pytest.mark.parametrize("part", ["stream.fraction=0.3", "limit_samples=20"])
def test_positive_weights_of_several_labels_go_by_it_too(part: str, multi_path: Path) -> None:
    recipe = make_recipe(multi_path, "loss.name=bce", "loss.class_weights=balanced", part)
    counts, total = count_weighed(open_dataset(multi_path).split("train"), recipe)
    shown = count_shown(multi_path, recipe)
    assert (counts.tolist(), total) == (shown[0].tolist(), shown[1])
    assert total < 112


def test_samples_that_a_weighted_order_draws_from_are_counted_once(uneven_path: Path) -> None:
    recipe = make_recipe(uneven_path, "stream.order=weighted", "stream.fraction=0.5", *EFFECTIVE)
    counts, total = count_weighed(open_dataset(uneven_path).split("train"), recipe)
    assert (counts.tolist(), total) == ([12, 5, 2], 19)  # half of each, rounded to even


@pytest.mark.parametrize(
    ("options", "version"),
    [(EFFECTIVE, 2), (("limit_samples=12",), 2), (("limit_samples=12", *EFFECTIVE), 1)],
    ids=["all are shown", "nothing goes by their number", "the run began when all were counted"],
)
def test_all_are_counted_where(options: tuple[str, ...], version: int, uneven_path: Path) -> None:
    counts, total = count_weighed(open_dataset(uneven_path).split("train"), make_recipe(uneven_path, *options), version)
    assert (counts.tolist(), total) == ([24, 10, 3], 37)
