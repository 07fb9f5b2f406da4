"""A checkpoint of another network is refused, though it fills the model; what a checkpoint may have beside is not."""

from __future__ import annotations

import contextlib
import functools
import logging
import warnings
from pathlib import Path

import pytest
import torch
from runs import run_dir
from torch import Tensor, nn

from shards.cli.ending import run_command
from shards.errors import ShardError, UsageError
from trainer.bundle.__main__ import main as bundle_main
from trainer.contract.bundle import Bundle
from trainer.contract.model.backbone import build_backbone, build_without_memory, list_torchvision
from trainer.contract.model.model import ModelSpec, find_heads
from trainer.loop.build import build_model
from trainer.loop.loop import train
from trainer.ranks.ranks import single_rank
from trainer.recipes.file import load_recipe
from trainer.recipes.recipe import Recipe
from trainer.record.run_folder import STOP_FILE, RunFolder
from trainer.run.__main__ import main as run_main
from trainer.weights.leftovers import find_leftovers
from trainer.weights.match import LoadReport, match_tensors
from trainer.weights.resolve import resolve_recipe

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

BATCH_NORM, GROUP_NORM = "timm/test_efficientnet", "timm/test_efficientnet_gn"
"""The same network but for its norms; the names of its tensors are the same, too."""


@functools.cache
def build(name: str, num_classes: int) -> nn.Module:
    return build_without_memory(lambda: build_backbone(name, num_classes))


def make_tensors(name: str, num_classes: int = 3) -> dict[str, Tensor]:
    """A state dict of that network; the numbers of a tensor are one number, so that it takes no room."""
    own = build(name, num_classes).state_dict()
    return {name: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape) for name, tensor in own.items()}


def match(tensors: dict[str, Tensor], name: str, num_classes: int = 3) -> LoadReport:
    with warnings.catch_warnings(action="ignore"):  # of tensors that stay without memory
        return match_tensors(build(name, num_classes), ModelSpec(name=name, num_classes=num_classes), tensors)


# What a file has beside all tensors of the model; a slow test below finds all such pairs of both libraries.
PAIRS = [
    ("resnet34", "resnet18", "layer1.2.conv1.weight"),
    ("timm/resnet50", "timm/resnet50_gn", "layer1.0.bn1.running_mean"),
    ("timm/ecaresnet26t", "timm/resnet26t", "layer1.0.se.conv.weight"),
    ("timm/resnetrs50", "timm/resnet50d", "maxpool.0.weight"),
    ("convnext_small", "convnext_tiny", "features.5.26.layer_scale"),
    ("swin_v2_s", "swin_v2_t", "features.5.17.norm2.bias"),
    ("timm/convnext_atto", "timm/convnext_atto_rms", "stem.1.bias"),
    ("timm/test_efficientnet_evos", GROUP_NORM, "bn1.v"),
    ("timm/convnext_large_mlp", "timm/convnext_large", "head.pre_logits.fc.weight"),
    ("timm/mvitv2_small_cls", "timm/mvitv2_small", "cls_token"),
    ("timm/mobilenetv1_100h", "timm/mobilenetv1_100", "bn2.running_mean"),
    ("timm/vit_small_patch16_rope_ape_224", "timm/vit_small_patch16_rope_224", "pos_embed"),
    ("timm/vit_small_patch16_rope_mixed_224", "timm/vit_small_patch16_rope_224", "rope.freqs"),
    ("timm/vit_base_patch32_siglip_256", "timm/vit_base_patch32_siglip_gap_256", "attn_pool.q.weight"),
]


@pytest.mark.parametrize(("theirs", "model", "leftover"), PAIRS, ids=lambda name: name.removeprefix("timm/"))
def test_leftovers_of_a_network_that_fills_the_model_are_named(theirs: str, model: str, leftover: str) -> None:
    report = match(make_tensors(theirs), model)
    assert (report.missing, leftover in report.leftovers) == ((), True)


@pytest.mark.parametrize(("theirs", "model", "leftover"), PAIRS[:2], ids=lambda name: name.removeprefix("timm/"))
def test_leftovers_are_named_below_a_head_of_other_classes_too(theirs: str, model: str, leftover: str) -> None:
    report = match(make_tensors(theirs, 5), model)
    assert (report.missing, leftover in report.leftovers) == (("fc.weight", "fc.bias"), True)


def test_trunk_of_other_shapes_is_a_leftover() -> None:
    """More than half of the model is filled, and the rest would start from nothing."""
    tensors = make_tensors("resnet18")
    wide = {name: tensor for name, tensor in tensors.items() if name.startswith("layer4.") and tensor.dim() == 4}
    report = match(tensors | {name: torch.zeros((7, *tensor.shape[1:])) for name, tensor in wide.items()}, "resnet18")
    assert report.leftovers == report.untrained == tuple(wide)


def test_position_table_that_cannot_be_fitted_is_no_leftover() -> None:
    """A file of another size is one of the same network."""
    table = "encoder.pos_embedding"
    report = match(make_tensors("vit_b_32") | {table: torch.zeros(1, 4, 768)}, "vit_b_32")  # three places are no square
    assert (report.leftovers, report.untrained) == ((), (table,))


def prefix(tensors: dict[str, Tensor], text: str) -> dict[str, Tensor]:
    return {text + name: tensor for name, tensor in tensors.items()}


def read_in_parts(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the head of a tutorial: two layers and a norm in the place of one."""
    head = {"fc.0.weight": (64, 512), "fc.1.running_mean": (64,), "fc.3.weight": (5, 64), "fc.3.bias": (5,)}
    trunk = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
    return trunk | {name: torch.zeros(shape) for name, shape in head.items()}


one = torch.zeros(1)
BESIDE = {
    "project's own": lambda t: t | {"loss.weight": one, "projector.0.running_mean": one, "queue": one},
    "average of the weights": lambda t: t | prefix(t, "ema."),
    "masked pretraining": lambda t: t | {"mask_token": one, "decoder_blocks.0.bias": one, "decoder_norm.bias": one},
    "segmentation": lambda t: t | {"aux_classifier.0.weight": one, "classifier.0.weight": one},
    "distillation": lambda t: t | {"head_dist.weight": one, "dist_token": one, "distillation_classifier.bias": one},
    "auxiliary in the trunk": lambda t: t | {"layer3.aux_head.fc.weight": one},
    "counters": lambda t: t | {"layer1.9.bn1.num_batches_tracked": torch.tensor(3), "layer1.0.total_ops": one.double()},
    "indices": lambda t: t | {"layer1.relative_position_index": torch.arange(3), "layer1.attn_mask": one},
    "integers": lambda t: t | {"layer1.table": torch.arange(3)},
    "average of the same names": lambda t: t | prefix(t, "module."),
    "data parallel": lambda t: prefix(t, "module."),
    "Lightning": lambda t: prefix(t, "model.") | {"train_acc.total": one},
    "self.net": lambda t: prefix(t, "net.") | {"head.weight": one},
    "head of two layers": read_in_parts,
    "no head": lambda t: {name: tensor for name, tensor in t.items() if not name.startswith("fc.")},
    "no counters": lambda t: {name: tensor for name, tensor in t.items() if not name.endswith("num_batches_tracked")},
}  # fmt: skip


@pytest.mark.parametrize("num_classes", [3, 5])
@pytest.mark.parametrize("beside", BESIDE)
def test_what_answers_do_without_is_no_leftover(beside: str, num_classes: int) -> None:
    report = match(BESIDE[beside](make_tensors("resnet18")), "resnet18", num_classes)
    assert (report.leftovers, report.untrained) == ((), ())


# Of all pairs those that differ by heads of training alone.
ACCEPTED = {
    "inception_v3": "timm/inception_v3",  # the auxiliary head
    **{f"timm/efficientvim_m{size}_dist": f"timm/efficientvim_m{size}" for size in (1, 2, 3, 4)},
    **{f"timm/iformer_{size}_distilled": f"timm/iformer_{size}" for size in ("m", "l", "l2")},
}


@pytest.mark.parametrize(("theirs", "model"), list(ACCEPTED.items())[:2])
def test_auxiliary_and_distillation_heads_are_no_leftovers(theirs: str, model: str) -> None:
    report = match(make_tensors(theirs), model)
    assert (report.leftovers, report.missing) == ((), ())
    assert report.left_out


OWN = [
    "googlenet", "inception_v3", "swin_t", "swin_v2_t", "mnasnet0_5", "maxvit_t", "vit_b_32", "squeezenet1_1",
    "timm/deit_tiny_distilled_patch16_224", "timm/levit_128s", "timm/repvit_m0_9", "timm/volo_d1_224",
    "timm/swin_tiny_patch4_window7_224", "timm/xcit_nano_12_p16_224",
]  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_model_s_own_file_has_no_leftovers_whatever_the_classes(name: str) -> None:
    same, other = (match(make_tensors(name), name, num_classes) for num_classes in (3, 5))
    assert (same.missing, same.left_out) == ((), {})
    assert (other.leftovers, other.untrained) == ((), ())


def list_buildable() -> dict[str, nn.Module]:
    """All models of both libraries that have a head, without memory."""
    import timm

    built = {}
    for name in [*list_torchvision(), *(f"timm/{name}" for name in timm.list_models())]:
        with contextlib.suppress(UsageError, RuntimeError):  # encoders without a head
            built[name] = build_without_memory(functools.partial(build_backbone, name, 3))
    return built


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_of_all_networks_none_is_taken_for_another_that_it_fills() -> None:
    """By names and shapes, all pairs of both libraries; and every network's own file with a head of other classes."""
    tensors: dict[str, dict[str, Tensor]] = {}
    heads: dict[str, list[str]] = {}
    for name, backbone in list_buildable().items():
        tensors[name], heads[name] = dict(backbone.state_dict()), find_heads(backbone)
    shapes = {
        name: {(each, tensor.shape) for each, tensor in own.items() if not each.endswith("num_batches_tracked")}
        for name, own in tensors.items()
    }
    accepted = []
    pairs = [(a, b) for b, few in shapes.items() for a, many in shapes.items() if few < many]
    for theirs, model in pairs:
        left = {name: tensor for name, tensor in tensors[theirs].items() if name not in tensors[model]}
        if not find_leftovers(left, tensors[model], tensors[model].keys() & tensors[theirs].keys(), heads[model]):
            accepted.append((theirs, model))
    for name, own in tensors.items():
        head = {each: own[each] for each in own if each.startswith(tuple(f"{head}." for head in heads[name]))}
        assert find_leftovers(head, own, own.keys() - head.keys(), heads[name]) == (), name
    assert len(pairs) > 700  # 727 with torchvision 0.29 and timm 1.0.31
    assert dict(accepted) == ACCEPTED


def test_names_of_the_authors_own_file_are_mapped_by_the_library() -> None:
    """Swin's authors count the step between two stages to the stage before, timm to the one behind."""
    name = "timm/swin_tiny_patch4_window7_224"
    theirs = {}
    for own, tensor in make_tensors(name).items():
        parts = own.replace("head.fc.", "head.").split(".")
        if parts[2:3] == ["downsample"]:
            parts[1] = str(int(parts[1]) - 1)
        theirs[".".join(parts)] = tensor
    theirs["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    report = match(theirs, name)
    assert (report.missing, report.leftovers, report.matched) == ((), (), len(theirs) - 1)


# the commands


def save(name: str, path: Path) -> Path:
    torch.save(make_tensors(name), path)
    return path


def bundle(file: Path, model: str, out: Path, *more: str) -> int:
    options = ["--model", model, "--classes", "a,b,c", "--preprocess", "stretch:32", "--out", str(out)]
    return run_command(bundle_main, [str(file), *options, *more])


@pytest.mark.parametrize(
    ("theirs", "model", "what"),
    [
        pytest.param(
            "resnet34", "resnet18", "80 tensors that resnet18 lacks: layer1.2.conv1.weight, ", marks=pytest.mark.slow
        ),
        (BATCH_NORM, GROUP_NORM, f"running statistics of BatchNorm that {GROUP_NORM} lacks: bn1.runn"),
    ],
)  # fmt: skip
def test_bundle_of_another_network_s_checkpoint_is_refused_unless_insisted_on(
    theirs: str, model: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = save(theirs, tmp_path / "w.pth")
    assert bundle(file, model, tmp_path / "out") == 3
    told = capsys.readouterr().err
    assert told.startswith(f"error: {file} has {what}")
    assert told.endswith(
        f"It is a checkpoint of another network, and {model} would compute wrong results with the rest; "
        "give the --model that it belongs to, or insist with --allow-leftovers\n"
    )
    assert not (tmp_path / "out").exists()
    assert bundle(file, theirs, tmp_path / "right") == 0
    assert bundle(file, model, tmp_path / "out", "--allow-leftovers") == 0
    assert Bundle.load(tmp_path / "out").page.model.name == model


def make_recipe(weights: Path, data: Path, *options: str) -> Recipe:
    return resolve_recipe(load_recipe("smoke", [f"data={data}", f"model={GROUP_NORM}", f"weights={weights}", *options]))


def test_model_of_a_run_is_refused_another_network_s_checkpoint(tmp_path: Path) -> None:
    recipe = make_recipe(save(BATCH_NORM, tmp_path / "w.pth"), tmp_path)
    with pytest.raises(ShardError) as caught:
        build_model(recipe, 3)
    assert str(caught.value).startswith(f"{tmp_path}/w.pth has running statistics of BatchNorm that {GROUP_NORM} lacks")
    assert str(caught.value).endswith("; give the model= that it belongs to, or insist with allow_leftovers=true")


def test_checkpoint_of_gray_pictures_is_refused_with_the_options_for_it(tmp_path: Path) -> None:
    torch.save(dict(build_backbone(GROUP_NORM, 3, in_channels=1).state_dict()), tmp_path / "gray.pth")
    with pytest.raises(ShardError, match=r"set preprocess\.channels=1 preprocess\.gray_backbone=true, or insist with"):
        build_model(make_recipe(tmp_path / "gray.pth", tmp_path), 3)
    gray = ("preprocess.channels=1", "preprocess.gray_backbone=true")
    assert build_model(make_recipe(tmp_path / "gray.pth", tmp_path, *gray), 3).spec.in_channels == 1


@pytest.mark.parametrize(
    ("theirs", "changes", "level", "sentence"),
    [
        (GROUP_NORM, {}, "INFO", "all {all} tensors loaded"),
        (BATCH_NORM, {}, "WARNING", "all {all} tensors loaded; left out bn1.running_mean (not in the model), "),
        (GROUP_NORM, {"module.classifier.weight": one}, "INFO", "left out module.classifier.weight (not in the model)"),
        (GROUP_NORM, {"conv_stem.weight": None}, "WARNING",
         "{less} of {all} tensors loaded; untrained numbers left in conv_stem.weight"),
    ],
)  # fmt: skip
def test_run_logs_what_was_loaded_and_warns_of_what_was_not(
    theirs: str, changes: dict[str, Tensor | None], level: str, sentence: str, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    tensors = {name: tensor for name, tensor in (make_tensors(theirs) | changes).items() if tensor is not None}
    torch.save(tensors, tmp_path / "w.pth")
    with caplog.at_level(logging.INFO, "trainer"):
        build_model(make_recipe(tmp_path / "w.pth", tmp_path, "allow_leftovers=true"), 3)
    total = len(make_tensors(GROUP_NORM))
    assert [record.levelname for record in caplog.records] == [level]
    assert caplog.messages[0].startswith(f"weights {tmp_path}/w.pth into {GROUP_NORM}: ")
    assert sentence.format(all=total, less=total - 1) in caplog.messages[0]


def run(weights: Path, data: Path, root: Path, *more: str) -> int:
    fixed = [f"data={data}", f"storage.root={root}", "launch=local", "epochs=1", "track.wandb=disabled"]
    return run_command(run_main, ["smoke", *fixed, f"model={GROUP_NORM}", f"weights={weights}", *more])


def test_run_from_another_network_s_checkpoint_is_refused_unless_insisted_on(
    dataset_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = save(BATCH_NORM, tmp_path / "w.pth")
    for more in ("--dry-run",), ():
        assert run(file, dataset_path, tmp_path / "runs", *more) == 3
        assert capsys.readouterr().err.startswith(f"error: {file} has running statistics of BatchNorm")
    assert run(file, dataset_path, tmp_path / "runs", "--dry-run", "allow_leftovers=true") == 0


def test_run_that_began_from_such_a_checkpoint_resumes(
    dataset_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As one does that began before such checkpoints were refused: its recipe has no word of them."""
    file = save(BATCH_NORM, tmp_path / "w.pth")
    fixed = [f"storage.root={tmp_path}", "launch=local", "epochs=1", "track.wandb=disabled"]
    recipe = make_recipe(file, dataset_path, *fixed)
    run_dir(recipe).mkdir()
    (run_dir(recipe) / STOP_FILE).touch()
    allowed = recipe.model_copy(update={"allow_leftovers": True})
    assert train(allowed, RunFolder.of(allowed), single_rank(), lambda _: None) == "interrupted"
    assert run(file, dataset_path, tmp_path, "--dry-run") == 0, capsys.readouterr().err
    (run_dir(recipe) / STOP_FILE).unlink()
    assert train(recipe, RunFolder.of(recipe), single_rank(), lambda _: None) == "finished"
