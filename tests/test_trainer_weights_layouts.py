"""Checkpoints of other libraries give the logits of their own code, or are refused with the reason."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision.models
from foreign_models import (
    HfResNet,
    HfViT,
    LightningTransfer,
    MmpretrainClassifier,
    MmpretrainViT,
    make_fastai,
)
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from shards.cli.ending import run_command
from shards.errors import ShardError, UsageError
from trainer.bundle.__main__ import main as bundle_main
from trainer.contract.bundle import read_bundle_page
from trainer.contract.model.backbone import build_backbone
from trainer.contract.model.model import ModelSpec
from trainer.recipes.file import build_recipe
from trainer.weights.load import load_weights
from trainer.weights.match import LoadReport, match_tensors
from trainer.weights.read import Choice, read_tensors
from trainer.weights.saved import read_saved_classes, read_saved_expectation

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

SHAPE: dict[str, int] = {"width": 32, "depth": 2, "heads": 2, "places": 4, "patch": 16, "num_classes": 3}


def make_resnet(kind: str = "basic") -> nn.Module:
    return torchvision.models.ResNet(BasicBlock if kind == "basic" else Bottleneck, [2, 1, 1, 1], num_classes=3)


def make_torchvision_vit() -> nn.Module:
    return torchvision.models.VisionTransformer(32, 16, 2, 2, 32, 64, num_classes=3)


def make_timm_vit() -> nn.Module:
    return timm.models.VisionTransformer(32, 16, num_classes=3, embed_dim=32, depth=2, num_heads=2, mlp_ratio=2)


def settle(model: nn.Module) -> nn.Module:
    """Give every tensor numbers of its own, so that one in another's place is seen."""
    torch.manual_seed(1)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            scale = 1.0 if tensor.dim() < 2 else tensor[0].numel() ** -0.5
            tensor.copy_(torch.randn_like(tensor) * scale)
            if name.endswith("running_var"):
                tensor.abs_().add_(0.5)
    return model.eval()


def make_mm_resnet() -> nn.Module:
    return MmpretrainClassifier(make_resnet(), 512, 3)


PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], str, str]] = {
    "transformers' ViT into timm's": (lambda: HfViT(**SHAPE), make_timm_vit, "timm/vit_tiny_patch16_224",
                                      "names mapped from transformers' ViT"),
    "transformers' ViT into torchvision's": (lambda: HfViT(**SHAPE), make_torchvision_vit, "vit_b_16",
                                             "names mapped from transformers' ViT"),
    "transformers' ResNet": (lambda: HfResNet([2, 1, 1, 1], [64, 128, 256, 512], False, 3), make_resnet, "resnet18",
                             "names mapped from transformers' ResNet"),
    "transformers' ResNet of bottlenecks": (
        lambda: HfResNet([2, 1, 1, 1], [256, 512, 1024, 2048], True, 3), functools.partial(make_resnet, "bottleneck"),
        "resnet50", "names mapped from transformers' ResNet"),
    "mmpretrain's ResNet": (make_mm_resnet, make_resnet, "resnet18", "head.fc.weight used as fc.weight"),
    "mmpretrain's ViT": (lambda: MmpretrainViT(**SHAPE), make_timm_vit, "timm/vit_tiny_patch16_224",
                         "names mapped from mmpretrain's ViT"),
    "Lightning's feature_extractor": (lambda: LightningTransfer(make_resnet(), 512, 3), make_resnet, "resnet18",
                                      "mapped from layers in a row"),
    "timm's ViT into torchvision's": (make_timm_vit, make_torchvision_vit, "vit_b_16", "names mapped from timm's ViT"),
}  # fmt: skip


def match(tensors: dict[str, Tensor], backbone: nn.Module, name: str) -> LoadReport:
    return match_tensors(backbone, ModelSpec(name=name, num_classes=3), tensors)


@pytest.mark.parametrize("pair", PAIRS)
@torch.inference_mode()
def test_foreign_checkpoint_gives_the_logits_of_its_own_code(pair: str) -> None:
    make_theirs, make_ours, name, told = PAIRS[pair]
    theirs, ours = settle(make_theirs()), make_ours().eval()
    report = match(dict(theirs.state_dict()), ours, name)
    side = 64 if "ResNet" in pair or "feature" in pair else 32
    images = torch.randn(2, 3, side, side)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-3, atol=1e-3)
    assert (report.missing, report.leftovers) == ((), ())
    assert any(told in change for change in report.changes)


@torch.inference_mode()
def test_fastai_s_body_starts_a_run_and_its_head_is_refused_with_the_reason() -> None:
    theirs, ours = settle(make_fastai(make_resnet(), 512, 3)), make_resnet().eval()
    report = match(dict(theirs.state_dict()), ours, "resnet18")
    images = torch.randn(2, 3, 64, 64)
    body = nn.Sequential(*list(ours.children())[:-2])
    torch.testing.assert_close(body(images), theirs[0](images), rtol=1e-3, atol=1e-3)  # type: ignore[operator,index]
    assert (report.missing, report.leftovers, report.untrained) == (("fc.weight", "fc.bias"), (), ())
    assert "the head is fastai's, several layers after average and maximum pooling" in str(report)


def test_bundle_of_fastai_s_checkpoint_is_refused_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = make_fastai(build_backbone("resnet18", 3), 512, 3)
    torch.save({"model": theirs.state_dict(), "opt": {}}, tmp_path / "w.pth")
    options = ["--model", "resnet18", "--classes", "a,b,c", "--out", str(tmp_path / "out")]
    assert run_command(bundle_main, [str(tmp_path / "w.pth"), *options]) == 3
    assert "The head is fastai's, several layers after" in capsys.readouterr().err


def test_row_of_layers_of_a_model_that_computes_between_them_is_refused() -> None:
    """A densenet's last ReLU is no child of it."""
    ours = torchvision.models.DenseNet(4, (2, 2, 2, 2), 8, num_classes=3)
    theirs = LightningTransfer(torchvision.models.DenseNet(4, (2, 2, 2, 2), 8, num_classes=3), 13, 3)
    with pytest.raises(
        ShardError, match=r"DenseNet computes more operations between them; save the state dict of the model"
    ):
        match(dict(theirs.state_dict()), ours, "densenet121")


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["model.0.conv.weight", "model.0.bn.weight", "model.9.linear.weight"], "an Ultralytics YOLO model"),
        (["swin.embeddings.patch_embeddings.projection.weight"], "a model of transformers"),
        (["backbone.stages.0.blocks.0.attn.w_msa.qkv.weight"], "a model of mmpretrain"),
    ],
)
def test_network_that_no_map_knows_is_refused_by_its_name(names: list[str], what: str) -> None:
    with pytest.raises(ShardError, match=rf"it is {what}, whose names are not mapped to resnet18's, so nothing was"):
        match({name: torch.zeros(1) for name in names}, make_resnet(), "resnet18")


def test_plain_networks_tensors_are_refused_for_one_that_computes_otherwise() -> None:
    with pytest.raises(UsageError, match="of a plain ViT, but timm/beit_base_patch16_224 computes differently"):
        match(dict(HfViT(**SHAPE).state_dict()), make_timm_vit(), "timm/beit_base_patch16_224")
    with pytest.raises(UsageError, match="of a plain ResNet, but timm/resnet50d computes differently"):
        match(dict(HfResNet([1], [64], False, 3).state_dict()), make_resnet(), "timm/resnet50d")


# Which of several models in a file

SMALL = "shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def two() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of two models of one architecture."""
    return (dict(build_backbone(SMALL, 3).state_dict()), dict(build_backbone(SMALL, 3).state_dict()))


def load(path: Path, choice: Choice) -> tuple[dict[str, Tensor], LoadReport]:
    backbone = build_backbone(SMALL, 3)
    report = load_weights(backbone, ModelSpec(name=SMALL, num_classes=3), str(path), choice=choice)
    assert report is not None
    return dict(backbone.state_dict()), report


def prefix(tensors: dict[str, Tensor], text: str) -> dict[str, Tensor]:
    return {text + name: tensor for name, tensor in tensors.items()}


Two = tuple[dict[str, Tensor], dict[str, Tensor]]


@pytest.mark.parametrize(("plain", "average"), [("state_dict", "state_dict_ema"), ("model", "model_ema")])
def test_average_is_taken_unless_it_is_not_wanted(plain: str, average: str, two: Two, tmp_path: Path) -> None:
    """As timm does, of its own files and of torchvision's."""
    torch.save(
        {plain: two[0], average: prefix(two[1], "module.") | {"n_averaged": torch.tensor(3)}}, tmp_path / "w.pth"
    )
    loaded, report = load(tmp_path / "w.pth", Choice())
    torch.testing.assert_close(loaded, two[1], rtol=0, atol=0)
    assert report.changes[:2] == (
        f"{average} taken, the average of the weights (--no-ema, weights_ema=false: not)",
        f"{plain} of the same file not taken",
    )
    loaded, report = load(tmp_path / "w.pth", Choice(ema=False))
    torch.testing.assert_close(loaded, two[0], rtol=0, atol=0)
    assert report.changes == (f"{average} of the same file not taken",)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (lambda a, b: {"student": a, "teacher": b, "dino_loss": {"center": torch.zeros(1, 3)}}, "teacher"),
        (lambda a, b: {"student": prefix(a, "module.backbone."), "teacher": prefix(b, "backbone.")}, "teacher"),
        (lambda a, b: prefix(a, "student.") | prefix(b, "teacher.backbone."), "teacher"),
        (lambda a, b: {"model": prefix(a, "student.backbone.") | prefix(b, "teacher.backbone.")}, "teacher"),
        (lambda a, b: {"model": a, "state_dict_ema": a, "more": {"swa": b}}, "more.swa"),
        (lambda a, b: {"nets": {"v1.0": b, "v2.0": a}}, "nets.v1.0"),
    ],
)  # fmt: skip
def test_key_chooses_one_of_several_models(content: Any, key: str, two: Two, tmp_path: Path) -> None:
    torch.save(content(*two), tmp_path / "w.pth")
    loaded, _ = load(tmp_path / "w.pth", Choice(key))
    torch.testing.assert_close(loaded, two[1], rtol=0, atol=0)


def test_several_models_are_refused_with_the_key_that_chooses(two: Two, tmp_path: Path) -> None:
    torch.save({"student": two[0], "teacher": two[1]}, tmp_path / "w.pth")
    with pytest.raises(ShardError, match=r"several, under student, teacher; choose one by --key student \(in "):
        load(tmp_path / "w.pth", Choice())
    with pytest.raises(UsageError, match=r"has no tensors under 'pupil'; there are student, teacher$"):
        load(tmp_path / "w.pth", Choice("pupil"))


def test_key_is_refused_for_what_holds_one_model(bundle_path: Path) -> None:
    for weights in (bundle_path, Path("IMAGENET1K_V1")):
        with pytest.raises(UsageError, match=r"chooses one of several models in a file, but .* has only one; leave"):
            load(weights, Choice("teacher"))


def test_tower_beside_the_model_is_no_second_model() -> None:
    """Masked autoencoders have a decoder of the same layers."""
    theirs = dict(make_timm_vit().state_dict())
    decoder = {f"decoder_blocks.0.{name[9:]}": each for name, each in theirs.items() if name.startswith("blocks.0.")}
    report = match(prefix(theirs | decoder, "net."), make_torchvision_vit(), "vit_b_16")
    assert report.missing == ()


def test_key_of_a_recipe_is_part_of_its_identity_only_where_it_is_given() -> None:
    values = {"data": "d", "name": "n", "model": "resnet18"}
    plain = build_recipe(values)
    assert build_recipe(values | {"weights_ema": True}).fingerprint() == plain.fingerprint()
    others = [build_recipe(values | more).fingerprint() for more in ({"weights_key": "a"}, {"weights_ema": False})]
    assert len({plain.fingerprint(), *others}) == 3


def test_command_takes_the_key(two: Two, tmp_path: Path) -> None:
    torch.save({"student": two[0], "teacher": two[1]}, tmp_path / "w.pth")
    options = ["--model", SMALL, "--classes", "a,b,c", "--preprocess", "stretch:64", "--out", str(tmp_path / "out")]
    assert run_command(bundle_main, [str(tmp_path / "w.pth"), *options, "--key", "teacher", "--no-ema"]) == 0


# Folders of Hugging Face's libraries


def save_folder(folder: Path, model: nn.Module, config: dict[str, Any], shards: int = 1) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    files = {
        name: f"model-{number % shards + 1:05d}-of-{shards:05d}.safetensors" for number, name in enumerate(tensors)
    }
    for file in set(files.values()):
        save_file({name: tensors[name] for name in files if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return folder


VIT = {"model_type": "vit", "hidden_act": "gelu", "id2label": {"0": "ant", "10": "wasp", "2": "bee"}}


@pytest.mark.parametrize("shards", [1, 3])
def test_tensors_of_a_folder_are_those_of_all_its_files(shards: int, tmp_path: Path) -> None:
    model = HfViT(**SHAPE)
    found = read_tensors(str(save_folder(tmp_path / "vit", model, VIT, shards))).tensors
    torch.testing.assert_close(found, dict(model.state_dict()), rtol=0, atol=0)


def test_folder_whose_shard_is_not_there_is_refused(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "vit", HfViT(**SHAPE), VIT, 3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(UsageError, match=r"names model-00002-of-00003\.safetensors, which is missing; copy all 3 f"):
        read_tensors(str(folder))


def test_folder_brings_its_classes_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "vit", HfViT(**SHAPE), VIT)
    assert read_saved_classes(folder) == ["ant", "bee", "wasp"]
    (folder / "config.json").write_text(json.dumps({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}))
    assert read_saved_classes(folder) is None


HALVES = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (HALVES | {"size": {"height": 224, "width": 224}}, ("stretch", None, 224, 0.5, "bilinear")),
        (HALVES | {"size": 224}, ("stretch", None, 224, 0.5, "bilinear")),
        (HALVES | {"size": {"shortest_edge": 224}, "crop_pct": 0.875}, ("crop", 256, 224, 0.5, "bilinear")),
        (HALVES | {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True,
                   "resample": 3}, ("crop", 256, 224, 0.5, "bicubic")),
        (HALVES | {"size": 224, "do_normalize": False}, ("stretch", None, 224, 0.0, "bilinear")),
    ],
)  # fmt: skip
def test_folder_says_what_its_model_expects_of_a_picture(
    page: dict[str, Any], expected: tuple[Any, ...], tmp_path: Path
) -> None:
    folder = save_folder(tmp_path / "vit", nn.Linear(1, 1), VIT)
    (folder / "preprocessor_config.json").write_text(json.dumps(page))
    found = read_saved_expectation(folder)
    assert found is not None
    assert (found.policy, found.resize, found.size, found.mean[0], found.interpolation) == expected


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            {"model_type": "swin"},
            "has a model of type 'swin' with names from transformers; only those of vit",
        ),
        ({"model_type": "resnet", "downsample_in_bottleneck": True}, "has downsample_in_bottleneck True: no model of"),
        ({"model_type": "vit", "hidden_act": "quick_gelu"}, "has hidden_act quick_gelu: no model of timm or torchvis"),
    ],
)
def test_folder_of_a_model_that_is_not_mapped_is_refused(config: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "model", nn.Linear(1, 1), config)
    with pytest.raises(ShardError) as caught:
        load(folder, Choice())
    assert sentence in str(caught.value)


def test_folder_becomes_a_bundle_with_all_that_it_says(tmp_path: Path) -> None:
    """timm's own folder, by timm's names; transformers' names are proven above."""
    model = timm.create_model("test_resnet", num_classes=3)
    config = {
        "architecture": "test_resnet",
        "label_names": ["ant", "bee", "wasp"],
        "pretrained_cfg": {"input_size": [3, 96, 96], "mean": [0.25] * 3, "std": [0.5] * 3, "crop_pct": 0.75},
    }
    folder = save_folder(tmp_path / "model", model, config)
    argv = [str(folder), "--model", "timm/test_resnet", "--out", str(tmp_path / "out")]
    assert run_command(bundle_main, argv) == 0
    page = read_bundle_page(tmp_path / "out")
    assert (page.classes, page.model.mean, page.preprocess.size) == (["ant", "bee", "wasp"], (0.25,) * 3, 96)
    assert page.preprocess.resize == 128
