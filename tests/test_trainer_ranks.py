"""Any number of ranks is the same run: samples, pixels, gradients, evaluation. Ranks are real processes with gloo."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xxhash
from conftest import make_pictures
from runs import run_dir
from safetensors.torch import load_file
from torch import Tensor

from shards.dataset.dataset import open_dataset
from shards.order.plan import slice_rank
from shards.packing.options import PackOptions
from shards.packing.pack import pack
from shards.sources.find import find_sources
from shards.workers.openmp import SPINS
from trainer.contract.model.model import Classifier, ModelSpec
from trainer.contract.task import ONE_LABEL
from trainer.evaluate.bundle import evaluate_on_rank
from trainer.evaluate.files import Judging
from trainer.evaluate.metrics.metrics import compute_metrics
from trainer.evaluate.metrics.rule import find_rule
from trainer.evaluate.rows import CHUNK, evaluate_split
from trainer.feed.feed import Batch
from trainer.feed.stream import TrainStream
from trainer.loop.build import build_model, build_preprocess
from trainer.loop.loop import train
from trainer.ranks.processes import run_processes
from trainer.ranks.ranks import Ranks, single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.options.optim import OptimOptions
from trainer.recipes.options.step import StepOptions
from trainer.recipes.recipe import Recipe
from trainer.record.ledger import read_ledger
from trainer.record.logbook import read_metrics
from trainer.record.run_folder import STOP_FILE, RunFolder
from trainer.run.launch import launch
from trainer.step.engine import Engine
from trainer.step.loss import build_loss
from trainer.weights.resolve import resolve_recipe

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

NUM_SAMPLES = 72
TRAINED = (1, 2, 3)
"""Numbers of ranks of all runs here; 4 evaluate as well."""
# 72 samples: full steps only; a last step of 2; a last step of 1, which leaves a rank of two and two of three empty.
BATCH_SIZES = (12, 7, 71)
LARGE = 300_000
"""Bytes of a result that no pipe holds."""
SLICED = Judging(by=("width", "mode"))


def make_recipe(data: Path, root: Path, *options: str) -> Recipe:
    fixed = [f"data={data}", f"storage.root={root}", "track.wandb=disabled", "launch=local", "ledger=true"]
    small = ["model=timm/test_efficientnet", "epochs=2", "optim.peak_lr=0.001"]
    return resolve_recipe(load_recipe("smoke", [*fixed, *small, *options]))


def make_runs(data: Path, wide: Path, multi: Path, root: Path, workers: int) -> dict[str, Recipe]:
    """A run for each batch size, three without BatchNorm, one of them on `multi`; one on `wide`, one to be stopped."""
    recipes = [
        *(make_recipe(data, root, f"name={size}", f"batch_size_global={size}") for size in BATCH_SIZES),
        make_recipe(data, root, "name=group-norm", "model=timm/test_efficientnet_gn", "batch_size_global=7"),
        make_recipe(
            data,
            root,
            "name=mixed",
            "model=timm/test_efficientnet_gn",
            "batch_size_global=7",
            "dtype=float64",
            "augment.mixup=0.4",
            "augment.cutmix=1",
            "loss.class_weights=[1, 2, 3]",
            "loss.label_smoothing=0.1",
        ),
        make_recipe(
            multi,
            root,
            "name=several",
            "model=timm/test_efficientnet_gn",
            "batch_size_global=9",
            "epochs=1",
            "limit_samples=28",
            "dtype=float64",
            "augment.mixup=0.4",
            "augment.cutmix=1",
            "loss.name=bce",
            "loss.class_weights=balanced",
            "loss.label_smoothing=0.1",
            "stop.metric=map",
        ),
        make_recipe(wide, root, "name=wide"),
        make_recipe(data, root, "name=stopped"),
    ]
    for recipe in recipes:
        run_dir(recipe).mkdir(parents=True)
    (root / "stopped" / STOP_FILE).touch()
    return {recipe.name: recipe.model_copy(update={"workers": workers}) for recipe in recipes}


def make_batches(weighted: bool) -> list[Batch]:
    """Global batches of 6, 5 and 1 samples with labels 0..2."""
    rng = np.random.default_rng(5)
    return [
        Batch(
            torch.from_numpy(rng.integers(0, 256, (size, 3, 32, 32), dtype=np.uint8)),
            torch.from_numpy(rng.integers(0, 3, size)),
            torch.from_numpy(rng.uniform(0.2, 3, size).astype(np.float32)) if weighted else torch.ones(size),
            np.arange(size),
            [""] * size,
        )
        for size in (6, 5, 1)
    ]


def cut(batch: Batch, part: slice) -> Batch:
    return Batch(batch.images[part], batch.labels[part], batch.weights[part], batch.ids[part], batch.sources[part])


def take_steps(
    ranks: Ranks, recipe: Recipe, weighted: bool, clip_norm: float | None = None, accumulate: int = 1
) -> dict[str, Tensor]:
    """The float64 weights of a model without BatchNorm after a step on each global batch."""
    optim = OptimOptions(name="sgd", peak_lr=0.1, clip_norm=clip_norm)
    recipe = recipe.model_copy(update={"optim": optim, "step": StepOptions(accumulate=accumulate)})
    torch.manual_seed(0)
    model = Classifier(ModelSpec(name="timm/test_efficientnet_gn", num_classes=3)).double()
    engine = Engine(model, recipe, ranks, build_loss(recipe.loss, np.array([1, 1, 1]), ["a", "b", "c"]))
    for number, batch in enumerate(make_batches(weighted)):
        part = cut(batch, slice_rank(len(batch), ranks.rank, ranks.num_ranks))
        engine.step(part, batch.total_weight, 1.0, number)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def do_everything(ranks: Ranks, runs: dict[str, Recipe], bundle: Path, data: Path, out: Path) -> dict[str, Any]:
    """All that the tests of this module compare, in one start of the processes."""
    return {
        "outcomes": {name: train(run, RunFolder.of(run), ranks, lambda _: None) for name, run in runs.items()},
        "equal": take_steps(ranks, runs["12"], weighted=False),
        "weighted": take_steps(ranks, runs["12"], weighted=True),
        "clipped": take_steps(ranks, runs["12"], weighted=True, clip_norm=0.1),
        "in parts": take_steps(ranks, runs["12"], weighted=True, accumulate=2),
        "evaluation": evaluate_on_rank(ranks, bundle, str(data), "train", out, 1, SLICED),
        "epochs": read_epochs(ranks, data),
        "large": bytes(LARGE),
    }


def read_epochs(ranks: Ranks, data: Path) -> dict[int, list[list[tuple[int, int]]]]:
    """An epoch of global batches of 11, as (sample id, hash of the pixels), by the number of each rank's workers."""
    options = ["augment.crop=random", "augment.policy=strong", "batch_size_global=11", "stream.lanes=3"]
    recipe = resolve_recipe(load_recipe("smoke", [f"data={data}", "name=epochs", *options]))
    dataset = open_dataset(data)
    epochs = {}
    for workers in (0, 1, 2, 4):
        chosen = recipe.model_copy(update={"workers": workers})
        stream = TrainStream(dataset.split("train"), chosen, build_preprocess(recipe, dataset), ranks)
        parts = [
            [(number, hash_image(image)) for number, image in zip(batch.ids.tolist(), batch.images, strict=True)]
            for batch in stream.iterate(3, 0)
        ]
        stream.close()
        epochs[workers] = [list(itertools.chain(*step)) for step in zip(*ranks.gather(parts), strict=True)]
    return epochs


def hash_image(image: Tensor) -> int:
    return xxhash.xxh3_64_intdigest(image.numpy().tobytes())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    return {num_ranks: tmp_path_factory.mktemp("ranks") for num_ranks in (*TRAINED, 4)}


@pytest.fixture(scope="module")
def wide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset whose validation part has a chunk for each of two ranks."""
    root = tmp_path_factory.mktemp("wide")
    pictures = make_pictures(root / "pictures", {"train": 8, "val": CHUNK // 2, "test": 1})
    pack(find_sources(pictures), root / "shards", PackOptions())
    return root / "shards"


@pytest.fixture(scope="module")
def runs(
    dataset_path: Path, wide_path: Path, multi_path: Path, folders: dict[int, Path]
) -> dict[int, dict[str, Recipe]]:
    """By number of ranks and name; with as many feed threads as ranks."""
    return {
        num_ranks: make_runs(dataset_path, wide_path, multi_path, folder, num_ranks)
        for num_ranks, folder in folders.items()
        if num_ranks in TRAINED
    }


@pytest.fixture(scope="module", autouse=True)
def results(
    dataset_path: Path, bundle_path: Path, folders: dict[int, Path], runs: dict[int, dict[str, Recipe]]
) -> dict[int, dict[str, Any]]:
    """What `do_everything` gave, by number of ranks."""
    return {
        num_ranks: run_processes(
            do_everything, (runs[num_ranks], bundle_path, dataset_path, folder / "evaluation"), num_ranks
        )
        for num_ranks, folder in folders.items()
        if num_ranks in TRAINED
    }


def seen(recipe: Recipe) -> list[tuple[int, int, int, int]]:
    """(epoch, step, sample id, hash of the pixels) of all steps that led to the weights, in order."""
    table = read_ledger(run_dir(recipe) / "ledger")
    names = ("epoch", "step", "sample_id", "pixels_xxh3")
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


@pytest.mark.parametrize("size", BATCH_SIZES)
@pytest.mark.parametrize("num_ranks", [2, 3])
def test_ledger_is_the_same_for_every_number_of_ranks_and_workers(
    runs: dict[int, dict[str, Recipe]], num_ranks: int, size: int
) -> None:
    assert seen(runs[num_ranks][str(size)]) == seen(runs[1][str(size)])


@pytest.mark.parametrize("size", BATCH_SIZES)
@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_every_epoch_holds_every_sample_exactly_once(
    runs: dict[int, dict[str, Recipe]], num_ranks: int, size: int
) -> None:
    table = read_ledger(run_dir(runs[num_ranks][str(size)]) / "ledger")
    epochs, ids = table["epoch"].to_numpy(), table["sample_id"].to_numpy()
    assert {epoch: sorted(ids[epochs == epoch].tolist()) for epoch in set(epochs.tolist())} == {
        epoch: list(range(NUM_SAMPLES)) for epoch in (0, 1)
    }


def test_some_ranks_are_empty_in_a_short_last_step(runs: dict[int, dict[str, Recipe]]) -> None:
    """The two tests above rely on it."""
    table = read_ledger(run_dir(runs[3]["71"]) / "ledger")
    assert set(table["rank"].to_numpy()[table["step"].to_numpy() == 1].tolist()) == {2}


def test_epochs_come_in_another_order_with_other_pixels(runs: dict[int, dict[str, Recipe]]) -> None:
    rows = seen(runs[1]["12"])
    first, second = rows[:NUM_SAMPLES], rows[NUM_SAMPLES:]
    assert [row[2] for row in first] != [row[2] for row in second]
    assert {row[2]: row[3] for row in first} != {row[2]: row[3] for row in second}


@pytest.fixture(scope="module")
def epochs(results: dict[int, dict[str, Any]], dataset_path: Path) -> dict[int, dict[int, list[list[tuple[int, int]]]]]:
    """By number of ranks, then of workers."""
    five = run_processes(read_epochs, (dataset_path,), 5)
    return {**{num_ranks: result["epochs"] for num_ranks, result in results.items()}, 5: five}


@pytest.fixture(scope="module", autouse=True)
def four(dataset_path: Path, bundle_path: Path, folders: dict[int, Path]) -> None:
    """An evaluation on 4 ranks, the last of which has no sample."""
    run_processes(evaluate_on_rank, (bundle_path, str(dataset_path), "train", folders[4] / "evaluation", 1, SLICED), 4)


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5])
def test_global_batches_are_the_same_pixels_for_every_number_of_ranks_and_workers(
    epochs: dict[int, dict[int, list[list[tuple[int, int]]]]], num_ranks: int, workers: int
) -> None:
    assert epochs[num_ranks][workers] == epochs[1][0]
    assert sorted(number for step in epochs[1][0] for number, _ in step) == list(range(NUM_SAMPLES))


@pytest.mark.parametrize("kind", ["equal", "weighted", "clipped", "in parts"])
@pytest.mark.parametrize("num_ranks", [2, 3])
def test_gradient_is_that_of_the_global_batch(results: dict[int, dict[str, Any]], num_ranks: int, kind: str) -> None:
    """Batches of 6, 5 and 1 samples: equal slices, unequal ones, and an empty one."""
    ours, theirs = (results[number][kind] for number in (num_ranks, 1))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_accumulation_on_any_number_of_ranks_is_the_whole_batch(
    results: dict[int, dict[str, Any]], num_ranks: int
) -> None:
    torch.testing.assert_close(results[num_ranks]["in parts"], results[1]["weighted"], rtol=0, atol=1e-9)


def test_steps_move_the_weights_by_more_than_that_tolerance(results: dict[int, dict[str, Any]]) -> None:
    torch.manual_seed(0)
    start = Classifier(ModelSpec(name="timm/test_efficientnet_gn", num_classes=3)).double().state_dict()
    ends = [start, *(results[1][kind] for kind in ("equal", "weighted", "clipped"))]
    pairs = itertools.combinations((end["backbone.classifier.weight"] for end in ends), 2)
    assert min(float((one - other).abs().max()) for one, other in pairs) > 1e-4


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_weights_of_a_run_without_batch_norm_do_not_depend_on_the_number_of_ranks(
    runs: dict[int, dict[str, Recipe]], num_ranks: int
) -> None:
    ours, theirs = (read_weights(runs[number]["group-norm"]) for number in (num_ranks, 1))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("num_ranks", [2, 3])
@pytest.mark.parametrize("name", ["mixed", "several"])
def test_mixed_pictures_and_weighted_classes_give_the_same_weights_on_every_number_of_ranks(
    runs: dict[int, dict[str, Recipe]], num_ranks: int, name: str
) -> None:
    """Last batches of 2 and of 1: partners on other ranks, unequal slices, empty ones."""
    ours, theirs = (read_weights(runs[number][name]) for number in (num_ranks, 1))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_several_labels_are_judged_alike_on_every_number_of_ranks(
    runs: dict[int, dict[str, Recipe]], num_ranks: int
) -> None:
    ours, theirs = (read_metrics(run_dir(runs[number]["several"]))[-1] for number in (num_ranks, 1))
    scores = [name for name in theirs if name.startswith("val/") and name != "val/time_s"]
    assert "val/map" in scores
    assert {name: ours[name] for name in scores} == pytest.approx({name: theirs[name] for name in scores}, abs=1e-9)


def read_weights(recipe: Recipe) -> dict[str, Tensor]:
    return load_file(max((run_dir(recipe) / "snapshots").iterdir()) / "model.safetensors")


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_validation_in_training_is_that_of_the_snapshot_although_ranks_have_their_own_batch_norm_statistics(
    runs: dict[int, dict[str, Recipe]], num_ranks: int
) -> None:
    recipe = runs[num_ranks]["wide"]
    dataset = open_dataset(recipe.data)
    model = build_model(recipe, len(dataset.classes))
    model.load_state_dict(read_weights(recipe))
    rows = evaluate_split(model, build_preprocess(recipe, dataset), dataset.split("val"), single_rank(), workers=1)
    metrics = compute_metrics(rows.labels, rows.logits, dataset.classes, find_rule(ONE_LABEL, dataset.classes))
    assert read_metrics(run_dir(recipe))[-1]["val/log_loss"] == metrics["log_loss"]


@pytest.mark.parametrize(
    "name", ["predictions.parquet", "predictions.csv", "predictions.txt", "metrics.json", "slices.csv", "curves.png"]
)
@pytest.mark.parametrize("num_ranks", [2, 3, 4])
def test_evaluation_files_are_the_same_bytes_for_every_number_of_ranks(
    folders: dict[int, Path], num_ranks: int, name: str
) -> None:
    ours, theirs = ((folders[number] / "evaluation" / name).read_bytes() for number in (num_ranks, 1))
    assert ours == theirs


def test_evaluation_on_several_ranks_returns_the_metrics_of_all_samples(results: dict[int, dict[str, Any]]) -> None:
    assert results[3]["evaluation"]["samples"] == NUM_SAMPLES


def test_result_of_any_size_comes_back_from_the_processes(results: dict[int, dict[str, Any]]) -> None:
    assert len(results[2]["large"]) == LARGE


def test_run_stopped_on_two_ranks_goes_on_exactly_on_one(
    runs: dict[int, dict[str, Recipe]], results: dict[int, dict[str, Any]], tmp_path: Path
) -> None:
    assert results[2]["outcomes"]["stopped"] == "interrupted"
    recipe = runs[2]["stopped"]
    shutil.copytree(run_dir(recipe), tmp_path / recipe.name)
    recipe = recipe.model_copy(update={"storage": recipe.storage.model_copy(update={"root": str(tmp_path)})})
    assert len(seen(recipe)) == recipe.batch_size_global  # it was stopped in its first step, which it took
    (run_dir(recipe) / STOP_FILE).unlink()
    assert train(recipe, RunFolder.of(recipe), single_rank(), lambda _: None) == "finished"
    assert seen(recipe) == seen(runs[1]["12"])


@pytest.mark.slow  # tests/e2e makes the claim of two Ray workers in CI; here it is a short last step on top
def test_two_ray_workers_see_the_global_batches_of_one_process(
    runs: dict[int, dict[str, Recipe]], dataset_path: Path, ray_cluster: str, tmp_path: Path
) -> None:
    from trainer.run.launch import launch

    recipe = make_recipe(dataset_path, tmp_path, "name=ray", "batch_size_global=7", "launch=ray", "num_ranks=2")
    launch(recipe.model_copy(update={"evaluate_on": []}))
    assert seen(recipe) == seen(runs[1]["7"])
    assert set(read_ledger(run_dir(recipe) / "ledger")["rank"].to_pylist()) == {0, 1}
    threads = json.loads((run_dir(recipe) / "environment.json").read_text())["threads"]
    # In Ray's worker, before torch was loaded there.
    assert threads.startswith(f"1 of torch (GOMP_SPINCOUNT={SPINS})")


def test_evaluation_does_not_depend_on_the_number_of_threads(
    bundle_path: Path, dataset_path: Path, folders: dict[int, Path], tmp_path: Path
) -> None:
    """One rank has all threads of a machine, two have half of them each."""
    torch.set_num_threads(2)
    try:
        evaluate_on_rank(single_rank(), bundle_path, str(dataset_path), "train", tmp_path, 1)
    finally:
        torch.set_num_threads(1)
    name = "predictions.csv"
    assert (tmp_path / name).read_bytes() == (folders[1] / "evaluation" / name).read_bytes()


def test_every_rank_has_its_own_rows_of_the_dataset(dataset_path: Path, runs: dict[int, dict[str, Recipe]]) -> None:
    table = read_ledger(run_dir(runs[2]["12"]) / "ledger")
    counts = [int((table["rank"].to_numpy() == rank).sum()) for rank in (0, 1)]
    assert counts == [open_dataset(dataset_path).split("train").num_samples] * 2


@pytest.mark.slow
def test_epoch_is_judged_by_the_average_that_is_kept(wide_path: Path, tmp_path: Path) -> None:
    """The average of each rank has seen BatchNorm statistics of its own."""
    options = ("model=timm/test_resnet", "step.ema=0.9", "num_ranks=2", "evaluate_on=[val]", "stop.metric=log_loss")
    recipe = make_recipe(wide_path, tmp_path, *options, "name=average", "optim.peak_lr=0.01")
    launch(recipe)
    kept = json.loads((run_dir(recipe) / "evaluation" / "val" / "metrics.json").read_text())
    assert min(row["val/log_loss"] for row in read_metrics(run_dir(recipe))) == pytest.approx(
        kept["log_loss"], rel=1e-6
    )
