"""Cached features: the head that is trained on them is that of the plain path, and what cannot have it is refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from runs import run_dir, save_weights
from safetensors.torch import load_file

from shards.errors import UsageError
from shards.files.atomic import lock_folder
from trainer.contract.model.model import Classifier, ModelSpec
from trainer.loop import loop
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import ResolvedRecipe
from trainer.record.logbook import read_metrics
from trainer.record.run_folder import RunFolder
from trainer.weights.resolve import resolve_recipe

FROZEN = ["freeze=[backbone]", "augment.policy=none", "batch_size_global=18", "epochs=2", "optim.peak_lr=0.01"]


def make_recipe(data: Path, root: Path, *options: str) -> ResolvedRecipe:
    fixed = [f"data={data}", f"storage.root={root}", "track.wandb=disabled", "launch=local", "ledger=true"]
    return resolve_recipe(load_recipe("smoke", [*fixed, "model=timm/test_efficientnet", *FROZEN, *options]))


def train_quietly(recipe: ResolvedRecipe) -> None:
    run_dir(recipe).mkdir(parents=True, exist_ok=True)
    assert loop.train(recipe, RunFolder.of(recipe), single_rank(), lambda _: None) == "finished"


def train(data: Path, root: Path, name: str, *options: str) -> dict[str, torch.Tensor]:
    recipe = make_recipe(data, root, f"name={name}", *options)
    train_quietly(recipe)
    last = sorted((run_dir(recipe) / "snapshots").iterdir())[-1]
    return load_file(last / "model.safetensors")


@pytest.fixture
def weights(tmp_path: Path) -> str:
    return f"weights={save_weights(tmp_path / 'w.pth', 'timm/test_efficientnet')}"


@pytest.mark.parametrize("option", ["seed=1", "step.ema=0.9", "head_dropout=0.3", "loss.label_smoothing=0.1"])
def test_head_trained_on_features_is_the_one_trained_on_pictures(
    option: str, weights: str, dataset_path: Path, tmp_path: Path
) -> None:
    plain = train(dataset_path, tmp_path, "plain", weights, option)
    cached = train(dataset_path, tmp_path, "cached", weights, option, "cache_features=true")
    assert plain.keys() == cached.keys()
    start = Classifier(ModelSpec(name="timm/test_efficientnet", num_classes=3)).state_dict()
    for name, tensor in plain.items():
        torch.testing.assert_close(cached[name], tensor, rtol=1e-3, atol=1e-5)
    assert not torch.equal(plain["backbone.classifier.weight"], start["backbone.classifier.weight"])
    rows = [read_metrics(tmp_path / name) for name in ("plain", "cached")]
    for one, other in zip(*rows, strict=True):
        assert one["train/loss"] == pytest.approx(other["train/loss"], rel=1e-4)
        assert one["val/log_loss"] == pytest.approx(other["val/log_loss"], rel=1e-4)
        assert one["samples_seen"] == other["samples_seen"]


def test_features_are_shared_and_computed_once(weights: str, dataset_path: Path, tmp_path: Path) -> None:
    shared = f"storage.features={tmp_path}/features"
    train(dataset_path, tmp_path, "one", weights, "cache_features=true", shared)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "features").glob("*/features.safetensors")}
    assert sorted(path.parent.name.partition("-")[0] for path in files) == ["train", "val"]
    train(dataset_path, tmp_path, "two", weights, "cache_features=true", shared, "seed=5", "optim.peak_lr=0.1")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "features").glob("*/features.safetensors")} == files
    other = f"weights={save_weights(tmp_path / 'other.pth', 'timm/test_efficientnet', seed=7)}"
    train(dataset_path, tmp_path, "three", other, "cache_features=true", shared)
    assert len(list((tmp_path / "features").glob("*/features.safetensors"))) == 4


def test_a_run_waits_for_another_that_computes_the_same_features(
    weights: str, dataset_path: Path, tmp_path: Path
) -> None:
    shared, place = f"storage.features={tmp_path}/features", tmp_path / "features"
    train(dataset_path, tmp_path, "one", weights, "cache_features=true", shared)
    files = list(place.glob("*/features.safetensors"))
    written = {path: path.read_bytes() for path in files}
    for path in files:
        path.unlink()
    pool = ThreadPoolExecutor(1)
    with lock_folder(next(place.glob("train-*"))):
        other = pool.submit(train, dataset_path, tmp_path, "two", weights, "cache_features=true", shared)
        with pytest.raises(TimeoutError):
            other.result(timeout=3)
        for path, content in written.items():  # what the other run was computing
            path.write_bytes(content)
        times = {path: path.stat().st_mtime_ns for path in files}
    other.result(timeout=60)
    pool.shutdown()
    assert {path: path.stat().st_mtime_ns for path in files} == times


def test_features_of_changed_pictures_are_refused() -> None:
    for option, says in (
        ("augment.policy=flip", "augment changes pictures in each epoch: set augment.policy=none"),
        ("augment.crop=random", "augment changes pictures in each epoch"),
        ("augment.mixup=0.2", "augment changes pictures in each epoch"),
        ("freeze=[conv_stem]", "the backbone is trained: set freeze=[backbone]"),
        ("freeze_epochs=1", "the backbone is trained: set freeze=[backbone] without freeze_epochs"),
        ("stream.decode=fast", "stream.decode=fast decodes otherwise than evaluation: set stream.decode=faithful"),
        ("dtype=float64", "features have float32 and dtype=float64: set dtype=float32"),
    ):
        with pytest.raises(UsageError, match="cache_features computes the head's input once") as caught:
            load_recipe("smoke", ["data=x", *FROZEN, "cache_features=true", option])
        assert says in str(caught.value)
    assert load_recipe("smoke", ["data=x", *FROZEN, "cache_features=true"]).cache_features


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("efficientnet_b0", "the features of efficientnet_b0 are random in training"),
        ("squeezenet1_1", "needs a model with one linear head, and squeezenet1_1 has classifier.1"),
    ],
)
def test_model_whose_features_are_not_fixed_is_refused(
    model: str, says: str, dataset_path: Path, tmp_path: Path
) -> None:
    options = [f"weights={save_weights(tmp_path / 'w.pth', model)}", f"model={model}", "image_size=32"]
    recipe = make_recipe(dataset_path, tmp_path, "name=refused", "cache_features=true", *options)
    with pytest.raises(UsageError, match=says):
        train_quietly(recipe)


def test_dropout_of_the_head_is_no_reason(dataset_path: Path, tmp_path: Path) -> None:
    model = "mobilenet_v3_small"
    options = [f"weights={save_weights(tmp_path / 'w.pth', model)}", f"model={model}", "image_size=32"]
    refused = make_recipe(dataset_path, tmp_path, "name=refused", "cache_features=true", *options)
    with pytest.raises(UsageError, match="set head_dropout if the dropout is the head's, or leave cache_features out"):
        train_quietly(refused)
    train_quietly(
        make_recipe(dataset_path, tmp_path, "name=taken", "cache_features=true", "head_dropout=0.2", *options)
    )
    train_quietly(make_recipe(dataset_path, tmp_path, "name=left", *options))


def test_old_recipes_keep_their_fingerprints() -> None:
    recipe = load_recipe("smoke", ["data=x", *FROZEN])
    assert recipe.fingerprint() == recipe.model_copy(update={"cache_features": False}).fingerprint()
    assert recipe.fingerprint() != recipe.model_copy(update={"cache_features": True}).fingerprint()
    moved = recipe.storage.model_copy(update={"features": "/elsewhere"})
    assert recipe.fingerprint() == recipe.model_copy(update={"storage": moved}).fingerprint()
