"""Steps of one rank; that several ranks take the same steps is in test_trainer_ranks.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from shards.errors import UsageError
from trainer.contract.model.model import Classifier, ModelSpec
from trainer.feed.feed import Batch
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import Recipe
from trainer.step.engine import Engine
from trainer.step.guard import Guard
from trainer.step.loss import build_loss
from trainer.step.norms import convert_norms, describe_local_norms

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

ROOT = Path(__file__).parent.parent
MODEL = "timm/test_efficientnet"


def make_recipe(*options: str) -> Recipe:
    return load_recipe("smoke", ["data=nowhere", f"model={MODEL}", "optim.peak_lr=0.05", *options])


def make_engine(*options: str, samples_per_epoch: int | None = None, syncs_norms: bool = False) -> Engine:
    """The engine of a recipe; `syncs_norms` with the SyncBatchNorms that the recipe's option makes on CUDA alone."""
    torch.manual_seed(0)
    recipe = make_recipe(*options)
    loss = build_loss(recipe.loss, np.array([5, 5, 5]), ["a", "b", "c"])
    model = Classifier(ModelSpec(name=recipe.model, num_classes=3))
    if syncs_norms:
        convert_norms(model)
    return Engine(model, recipe, single_rank(), loss, samples_per_epoch=samples_per_epoch)


def make_batch(size: int) -> Batch:
    rng = np.random.default_rng(size)
    images = torch.from_numpy(rng.integers(0, 256, (size, 3, 32, 32), dtype=np.uint8))
    labels = torch.arange(size) % 3
    return Batch(images, labels, torch.ones(size), np.arange(size), [""] * size)


def take_step(engine: Engine, batch: Batch, number: int = 0) -> float:
    """The mean loss of the step."""
    total = float(max(len(batch), 1))
    return float(engine.step(batch, total, 1.0, number).losses.sum()) / total


def test_step_whose_samples_all_weigh_nothing_moves_nothing() -> None:
    engine, batch = make_engine("loss.class_weights=[0, 0, 1]"), make_batch(2)
    before = copy_state(engine)
    step = engine.step(replace(batch, weights=torch.zeros(2)), 0.0, 1.0, 0)
    assert (step.moved, step.left_out, step.losses.tolist()) == (False, False, [0.0, 0.0])
    assert all(torch.equal(tensor, before[name]) for name, tensor in copy_state(engine).items())


def spoil_gradient(engine: Engine) -> None:
    """Make one number of a gradient infinite, while the losses stay as they are."""
    parameter = next(engine.model.parameters())
    parameter.register_hook(lambda gradient: gradient.index_fill(0, torch.tensor([0]), torch.inf))


def test_step_with_a_gradient_that_is_not_finite_is_left_out() -> None:
    engine = make_engine("step.on_nan=skip")
    before = copy_state(engine)
    spoil_gradient(engine)
    step = engine.step(make_batch(4), 4.0, 1.0, 0)
    assert step.losses.isfinite().all()
    assert (step.moved, step.left_out) == (False, True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in copy_state(engine).items())


def test_weights_that_are_not_finite_are_told_although_the_losses_were() -> None:
    engine = make_engine()
    assert engine.has_finite_weights()
    spoil_gradient(engine)
    assert engine.step(make_batch(4), 4.0, 1.0, 0).losses.isfinite().all()
    assert not engine.has_finite_weights()


def copy_state(engine: Engine, *kinds: str) -> dict[str, Tensor]:
    """Tensors of the model's state whose names hold one of `kinds`, or all."""
    state = engine.model.state_dict()
    return {name: tensor.clone() for name, tensor in state.items() if not kinds or any(kind in name for kind in kinds)}


def changed(engine: Engine, before: dict[str, Tensor]) -> set[str]:
    after = engine.model.state_dict()
    return {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}


@pytest.mark.parametrize(("size", "batch"), [(0, 12), (1, 12), (2, 12), (1, 4), (3, 16)])
def test_slice_below_two_pictures_or_a_quarter_of_the_batch_leaves_norm_statistics_alone(size: int, batch: int) -> None:
    engine = make_engine(f"batch_size_global={batch}")
    before = copy_state(engine, "running_", "num_batches_tracked")
    take_step(engine, make_batch(size))
    assert changed(engine, before) == set()


@pytest.mark.parametrize(("size", "batch", "samples"), [(2, 8, None), (4, 16, None), (5, 64, 5), (2, 64, 7)])
def test_slice_of_a_quarter_of_the_batch_moves_all_norm_statistics(size: int, batch: int, samples: int | None) -> None:
    """A batch that is larger than the epoch is never whole: a quarter is that of the epoch."""
    engine = make_engine(f"batch_size_global={batch}", samples_per_epoch=samples)
    before = copy_state(engine, "running_mean")
    take_step(engine, make_batch(size))
    assert changed(engine, before) == set(before)


def test_parts_of_a_slice_have_a_quarter_of_their_own() -> None:
    engine = make_engine("batch_size_global=16", "step.accumulate=2")
    before = copy_state(engine, "running_mean")
    take_step(engine, make_batch(4))  # in two parts of 2, of ordinary parts of 8
    assert changed(engine, before) == set(before)


def test_empty_slice_has_no_loss() -> None:
    assert take_step(make_engine(), make_batch(0)) == 0.0


def test_statistics_move_again_after_an_empty_slice() -> None:
    engine = make_engine()
    take_step(engine, make_batch(0))
    before = copy_state(engine, "running_mean")
    take_step(engine, make_batch(4))
    assert changed(engine, before) == set(before)


def test_frozen_part_stays_bit_for_bit_with_its_norms() -> None:
    engine = make_engine("freeze=[conv_stem, bn1, blocks.0]")
    before = copy_state(engine)
    for number in range(3):
        take_step(engine, make_batch(6), number)
    frozen = {
        name for name in before if name.startswith(("backbone.conv_stem.", "backbone.bn1.", "backbone.blocks.0."))
    }
    constants = {"mean", "std"}
    assert changed(engine, before) == set(before) - frozen - constants


@pytest.mark.parametrize("size", [1, 2, 6])
def test_frozen_sync_batch_norm_stays_bit_for_bit_in_a_short_step_too(size: int) -> None:
    """A single rank computes it on a CPU as well, without a process group."""
    engine = make_engine("freeze=[backbone]", "batch_size_global=12", syncs_norms=True)
    before = copy_state(engine)
    take_step(engine, make_batch(size))
    assert changed(engine, before) == {"backbone.classifier.weight", "backbone.classifier.bias"}


@pytest.mark.parametrize("name", [MODEL, "timm/test_resnet", "shufflenet_v2_x0_5"])
def test_synced_norms_compute_in_evaluation_what_the_model_did(name: str) -> None:
    """timm's hold their activation; a conversion that drops it trains another model."""
    torch.manual_seed(0)
    model = Classifier(ModelSpec(name=name, num_classes=3)).eval()
    images = make_batch(2).images
    with torch.inference_mode():
        before = model(images)
        convert_norms(model)
        after = model(images)
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    torch.testing.assert_close(after, before)


def test_frozen_backbone_leaves_the_head_to_train() -> None:
    engine = make_engine("freeze=[backbone]")
    before = copy_state(engine)
    take_step(engine, make_batch(6))
    assert changed(engine, before) == {"backbone.classifier.weight", "backbone.classifier.bias"}


def test_prefix_freezes_whole_names_only() -> None:
    """blocks.1 is not a prefix of blocks.10."""
    with pytest.raises(UsageError, match="begins with 'block'"):
        make_engine("freeze=[block]")


def test_unknown_prefix_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(UsageError) as caught:
        make_engine("freeze=[layer1]")
    assert str(caught.value) == (
        f"freeze: no parameter of {MODEL} begins with 'layer1'; "
        "it has blocks, bn1, bn2, classifier, conv_head, conv_stem"
    )


def test_freezing_all_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        make_engine("freeze=[backbone, classifier]")
    assert str(caught.value) == "freeze leaves nothing to train; [backbone] freezes all except the head"


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_ten_steps_lower_the_loss_in_every_precision(amp: str) -> None:
    engine, batch = make_engine(f"amp={amp}"), make_batch(6)
    losses = [take_step(engine, batch, number) for number in range(10)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_is_really_lower(amp: str) -> None:
    plain, mixed = make_engine(), make_engine(f"amp={amp}")
    batch = make_batch(6)
    assert take_step(plain, batch) != take_step(mixed, batch)


def test_loss_is_scaled_in_fp16_alone() -> None:
    assert [make_engine(f"amp={amp}").scaler.is_enabled() for amp in ("off", "bf16", "fp16")] == [False, False, True]


def test_loss_is_the_weighted_cross_entropy_of_the_logits() -> None:
    engine, batch = make_engine("model=timm/test_efficientnet_gn"), make_batch(6)
    weighted = Batch(batch.images, batch.labels, torch.arange(1.0, 7.0), batch.ids, batch.sources)
    with torch.no_grad():
        probabilities = engine.model(batch.images).softmax(1)
    expected = -(probabilities[torch.arange(6), batch.labels].log() * torch.arange(1.0, 7.0)).sum()
    assert float(engine.step(weighted, 21.0, 1.0, 0).losses.sum()) == pytest.approx(float(expected), rel=1e-5)


def test_learning_rate_of_a_step_is_its_share_of_the_peak() -> None:
    engine = make_engine()
    engine.step(make_batch(2), 2.0, 0.5, 0)
    assert {group["lr"] for group in engine.optimizer.param_groups} == {0.025}


def test_clipped_gradient_has_the_norm_that_the_recipe_allows() -> None:
    engine = make_engine("optim.clip_norm=0.001")
    take_step(engine, make_batch(6))
    gradients = [parameter.grad for parameter in engine.model.parameters() if parameter.grad is not None]
    assert float(torch.cat([gradient.flatten() for gradient in gradients]).norm()) == pytest.approx(0.001, rel=1e-3)


def test_optimizer_holds_every_trained_parameter_once() -> None:
    engine = make_engine("freeze=[conv_stem]")
    held = [id(parameter) for group in engine.optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(p) for p in engine.model.parameters() if p.requires_grad)


def test_same_step_number_draws_the_same_dropout() -> None:
    batch = make_batch(4)
    losses = []
    for number in (3, 3, 4):
        engine = make_engine("model=timm/test_efficientnet_gn")
        engine.model.backbone.drop_rate = 0.5
        losses.append(take_step(engine, batch, number))
    assert losses[0] == losses[1] != losses[2]


def test_batch_norm_over_several_ranks_is_named_with_what_would_not_depend_on_them() -> None:
    batch_norm, group_norm = (
        Classifier(ModelSpec(name=f"timm/test_efficientnet{ending}", num_classes=2)) for ending in ("", "_gn")
    )
    sentence = describe_local_norms(batch_norm, 2)
    assert sentence is not None
    assert "the weights depend on num_ranks=2. To avoid it, use a model with GroupNorm" in sentence
    assert describe_local_norms(batch_norm, 1) is None
    assert describe_local_norms(group_norm, 2) is None


# accumulation

SAME = "model=timm/test_efficientnet_gn"
"""GroupNorm and no dropout: parts of a batch compute what the whole does."""


@pytest.mark.parametrize("accumulate", [2, 3, 5, 100])
@pytest.mark.parametrize("size", [5, 1, 0])
def test_parts_of_a_batch_move_the_weights_as_the_whole_does(accumulate: int, size: int) -> None:
    whole, parts = make_engine(SAME), make_engine(SAME, f"step.accumulate={accumulate}")
    for engine in (whole, parts):
        engine.model.double()
        for number in range(3):
            take_step(engine, make_batch(size), number)
    torch.testing.assert_close(copy_state(parts), copy_state(whole), rtol=0, atol=1e-9)


def test_losses_of_parts_come_in_the_order_of_the_samples() -> None:
    batch = make_batch(5)
    whole, parts = (make_engine(SAME, f"step.accumulate={number}").step(batch, 5.0, 1.0, 0) for number in (1, 3))
    torch.testing.assert_close(whole.losses, parts.losses, rtol=1e-4, atol=1e-5)


# losses that are not finite numbers


def spoil(batch: Batch, row: int) -> Batch:
    """A batch in which one sample's loss is infinite."""
    weights = batch.weights.clone()
    weights[row] = torch.inf
    return Batch(batch.images, batch.labels, weights, batch.ids, batch.sources)


def test_step_with_a_loss_that_is_not_finite_is_left_out_where_the_recipe_says_so() -> None:
    engine = make_engine("step.on_nan=skip")
    take_step(engine, make_batch(6), 0)
    before = copy_state(engine)
    step = engine.step(spoil(make_batch(6), 2), 6.0, 1.0, 1)
    assert (step.moved, step.left_out) == (False, True)
    assert changed(engine, before) == set()
    take_step(engine, make_batch(6), 2)
    assert "backbone.classifier.weight" in changed(engine, before)


def test_guard_names_step_and_samples_and_saves_their_pictures(tmp_path: Path) -> None:
    engine, batch = make_engine(), spoil(make_batch(6), 2)
    guard = Guard(tmp_path / "nonfinite", 1)
    assert not guard.is_bad()
    guard.watch(41, batch, engine.step(batch, 6.0, 1.0, 41).losses)
    assert guard.is_bad()
    path = tmp_path / "nonfinite/step-000000041-rank-0001.safetensors"
    assert guard.save() == f"step 41: the loss of 1 of 6 samples is not finite (ids 2; {path})"
    saved = load_file(path)
    assert saved["ids"].tolist() == [2]
    assert torch.equal(saved["images"], batch.images[2:3])


def test_guard_is_quiet_about_finite_losses(tmp_path: Path) -> None:
    guard = Guard(tmp_path / "nonfinite", 0)
    guard.watch(0, make_batch(3), torch.ones(3))
    assert (guard.is_bad(), guard.save(), (tmp_path / "nonfinite").exists()) == (False, "", False)


# release of what is frozen


def test_what_is_frozen_for_two_epochs_moves_from_the_third_on() -> None:
    engine = make_engine("freeze=[backbone]", "freeze_epochs=2", "optim.weight_decay=0.1")
    before = copy_state(engine)
    moved = []
    for epoch in range(3):
        engine.begin_epoch(epoch)
        take_step(engine, make_batch(6), epoch)
        moved.append("backbone.conv_stem.weight" in changed(engine, before))
    assert moved == [False, False, True]


def test_norms_that_were_frozen_see_pictures_again_after_their_release() -> None:
    engine = make_engine("freeze=[backbone]", "freeze_epochs=1")
    engine.begin_epoch(1)
    before = copy_state(engine, "running_mean")
    take_step(engine, make_batch(4))
    assert changed(engine, before) == set(before)


# average of the weights


def test_judged_weights_are_the_average_and_training_goes_on_with_its_own() -> None:
    engine = make_engine("step.ema=0.9")
    for number in range(4):
        take_step(engine, make_batch(6), number)
    own = copy_state(engine)
    with engine.judged_weights():
        assert "backbone.classifier.weight" in changed(engine, own)
    assert changed(engine, own) == set()


# memory


@pytest.mark.slow
def test_batch_that_does_not_fit_is_computed_in_more_parts_and_gives_the_same_weights(tmp_path: Path) -> None:
    """In a process that may use so little memory that the whole batch cannot be computed."""
    script = Path(__file__).parent / "out_of_memory.py"
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    # What an attempt held that failed must be free for the next one. Parts double, and need more than they keep.
    assert 1 < result["parts_needed"] < result["parts_auto"] <= 4 * result["parts_needed"]
    assert 1 < result["parts_recovered"] <= 4 * result["parts_needed"]
    assert result["distance"] < 1e-6


def test_process_wide_settings_are_those_of_the_recipe() -> None:
    try:
        make_engine("step.deterministic=true", "step.tf32=false")
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        make_engine()
    assert not torch.are_deterministic_algorithms_enabled()


def test_sync_batch_norm_is_refused_on_a_cpu() -> None:
    with pytest.raises(UsageError, match=r"step\.sync_batch_norm needs CUDA, but this rank uses a CPU"):
        make_engine("step.sync_batch_norm=true")
