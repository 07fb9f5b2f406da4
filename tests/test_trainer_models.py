"""Models by name: what they are called, their heads, sizes and channels, and the command that lists them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision.models
from torch import Tensor, nn

from shards.cli.ending import run_command
from shards.errors import UsageError
from trainer.contract.bundle import Bundle, save_bundle
from trainer.contract.decision.decision import Decision
from trainer.contract.model.backbone import build_backbone, build_without_memory, list_torchvision, own_size
from trainer.contract.model.head import find_heads
from trainer.contract.model.model import Classifier, ModelSpec, split_outputs
from trainer.contract.model.names import ALIASES, resolve_alias
from trainer.contract.preprocess import PreprocessSpec
from trainer.contract.probes import synthesise_pictures
from trainer.loop.build import build_model_spec, check_size
from trainer.models.__main__ import main
from trainer.models.facts import count_parameters, measure, summarise
from trainer.recipes.recipe import Recipe
from trainer.weights.resolve import resolve_recipe

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores


def build_on_meta(name: str, num_classes: int | None, **options: int) -> nn.Module:
    return build_without_memory(lambda: build_backbone(name, num_classes, **options))


@pytest.mark.parametrize("name", list_torchvision())
def test_torchvision_model_has_the_published_parameters_and_a_head_for_each_class(name: str) -> None:
    published = torchvision.models.get_model_weights(name).DEFAULT
    backbone = build_on_meta(name, None, image_size=own_size(name))
    assert count_parameters(backbone) == published.meta["num_params"]
    heads = find_heads(backbone)
    assert {backbone.get_submodule(head).weight.shape[0] for head in heads} == {1000}
    layers = {at: layer for at, layer in backbone.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    assert set(heads) == {at for at, layer in layers.items() if layer.weight.shape[0] == 1000}


AUXILIARY = {"inception_v3": (["fc", "AuxLogits.fc"], 0.4), "googlenet": (["fc", "aux1.fc2", "aux2.fc2"], 0.3)}

# The smallest of each family, at the smallest size that its layers take. Those with an unusual head are run in CI.
SLOW = {"alexnet": 64, "maxvit_t": 224, "swin_v2_t": 64, "vit_b_32": 32, "vgg11": 32, "wide_resnet50_2": 32}
FAMILIES = {
    "convnext_tiny": 32, "densenet121": 32, "efficientnet_b0": 32, "efficientnet_v2_s": 33, "googlenet": 32,
    "inception_v3": 299, "mnasnet0_5": 32, "mobilenet_v2": 32, "mobilenet_v3_small": 32, "regnet_x_400mf": 32,
    "regnet_y_400mf": 32, "resnet18": 32, "resnext50_32x4d": 32, "shufflenet_v2_x0_5": 32, "squeezenet1_1": 32,
    "swin_t": 32, "timm/test_vit": 32, "timm/deit_tiny_distilled_patch16_224": 32, "timm/test_efficientnet": 32,
}  # fmt: skip


def train_a_step_and_bundle(name: str, size: int, folder: Path) -> None:
    torch.manual_seed(0)
    model = Classifier(ModelSpec(name=name, num_classes=3, image_size=size))
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    logits, auxiliary = split_outputs(model.train()(images))
    assert [tuple(some.shape) for some in (logits, *auxiliary)] == [(2, 3)] * len(find_heads_of_outputs(model))
    (logits.sum() + sum(some.sum() for some in auxiliary)).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    page = save_bundle(
        folder,
        model,
        synthesise_pictures()[:1],
        preprocess=PreprocessSpec(size=size),
        classes=["a", "b", "c"],
        display_names=["a", "b", "c"],
        decision=Decision(),
        probes="synthetic",
        dataset=None,
        recipe=None,
        metrics=None,
    )
    with torch.inference_mode():
        expected = model(images)
    loaded = Bundle.load(folder)
    assert torch.equal(loaded.compute_logits(images), expected)
    assert loaded.page.fingerprint() == page.fingerprint()


def find_heads_of_outputs(model: Classifier) -> list[str]:
    """The heads whose logits come out apart in training; distilled ones are averaged into the first."""
    return AUXILIARY.get(model.spec.name, (["head"], 0))[0]


IN_CI = {
    "googlenet", "mobilenet_v3_small", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "timm/test_vit",
    "timm/deit_tiny_distilled_patch16_224",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [name if name in IN_CI else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def test_smallest_of_a_family_trains_and_comes_back_from_its_bundle(name: str, tmp_path: Path) -> None:
    train_a_step_and_bundle(name, FAMILIES[name], tmp_path / "bundle")


def list_larger() -> list[str]:
    """torchvision's models of less than 100 million parameters that are not the smallest of their family; and vgg."""
    metas = {name: torchvision.models.get_model_weights(name).DEFAULT.meta for name in list_torchvision()}
    return [name for name, meta in metas.items() if meta["num_params"] < 100e6 and name not in FAMILIES] + ["vgg11"]


@pytest.mark.slow
@pytest.mark.parametrize("name", list_larger())
def test_every_model_below_100_million_parameters_trains_and_comes_back(name: str, tmp_path: Path) -> None:
    size = SLOW.get(name, 64 if name.startswith(("swin", "efficientnet_v2", "squeezenet")) else 32)
    train_a_step_and_bundle(name, size, tmp_path / "bundle")


@pytest.mark.parametrize("alias", ALIASES)
def test_name_of_a_tutorial_means_a_model_that_can_be_built(alias: str) -> None:
    heads = find_heads(build_on_meta(alias, 5))
    assert heads == find_heads(build_on_meta(resolve_alias(alias), 5))


def load(**options: object) -> Recipe:
    return Recipe.model_validate({"data": "d", "name": "n", **options})


def test_recipe_of_an_alias_is_the_recipe_of_its_model() -> None:
    alias, plain = load(model="mobilenetv3"), load(model="mobilenet_v3_large")
    assert (alias.model, alias.fingerprint()) == ("mobilenet_v3_large", plain.fingerprint())


def test_model_of_an_alias_is_stored_by_its_own_name() -> None:
    assert build_model_spec(load(model="EN-B0"), 2).name == "efficientnet_b0"


# From the papers' code: AdvProp scales to -1..1, xception (Cadene's port of Keras) as well.
@pytest.mark.parametrize(
    ("alias", "mean", "size", "interpolation"),
    [
        ("adv-efficientnet-b2", 0.5, 260, "bicubic"),
        ("xception", 0.5, 299, "bicubic"),
        ("se_resnext50_32x4d", 0.485, 224, "bicubic"),
        ("convnext-tiny", 0.485, 224, "bilinear"),
        ("EN-B0", 0.485, 224, "bicubic"),
    ],
)
def test_pretrained_weights_bring_normalisation_size_and_interpolation(
    alias: str, mean: float, size: int, interpolation: str
) -> None:
    recipe = resolve_recipe(load(model=alias, weights="pretrained"))
    assert build_model_spec(recipe, 2).mean[0] == mean
    assert (recipe.image_size, recipe.preprocess.interpolation) == (size, interpolation)


def test_two_weights_of_one_model_expect_what_each_says() -> None:
    sizes = {
        tag: resolve_recipe(load(model="regnet_y_16gf", weights=tag)).image_size
        for tag in ("IMAGENET1K_V2", "IMAGENET1K_SWAG_E2E_V1", "RegNet_Y_16GF_Weights.IMAGENET1K_SWAG_LINEAR_V1")
    }
    assert list(sizes.values()) == [224, 384, 224]


def test_model_from_scratch_takes_224_pixels_bilinear_as_they_are() -> None:
    recipe = resolve_recipe(load(model="efficientnet_b3"))
    assert (recipe.image_size, recipe.preprocess.interpolation) == (224, "bilinear")
    assert (build_model_spec(recipe, 2).mean, build_model_spec(recipe, 2).std) == ((0.0,) * 3, (1.0,) * 3)


def test_recipe_s_own_size_interpolation_and_normalisation_win() -> None:
    options = {"interpolation": "bilinear", "normalise": "none"}
    recipe = resolve_recipe(load(model="EN-B0", weights="pretrained", image_size=96, preprocess=options))
    assert (recipe.image_size, recipe.preprocess.interpolation) == (96, "bilinear")
    assert (build_model_spec(recipe, 2).mean, build_model_spec(recipe, 2).std) == ((0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
def test_pretrained_inception_sees_what_torchvision_s_own_conversion_gives(name: str) -> None:
    """torchvision normalises as ImageNet and converts inside (transform_input); x*2-1 is the same in one step."""
    spec = build_model_spec(resolve_recipe(load(model=name, weights="pretrained")), 2)
    pixels = torch.rand(1, 3, 8, 8)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    theirs = build_backbone(name, 2)
    theirs.transform_input = True  # type: ignore[assignment]
    convert: Callable[[Tensor], Tensor] = theirs._transform_input  # type: ignore[assignment]
    own_mean, own_std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    torch.testing.assert_close((pixels - own_mean) / own_std, convert((pixels - mean) / std), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", AUXILIARY)
def test_auxiliary_heads_answer_in_training_alone(name: str) -> None:
    size = FAMILIES[name]
    model = build_without_memory(lambda: Classifier(ModelSpec(name=name, num_classes=4)))
    images = torch.empty(2, 3, size, size, device="meta")
    trained = split_outputs(model.train()(images))
    judged = model.eval()(images)
    assert ([tuple(some.shape) for some in trained[1]], tuple(judged.shape)) == ([(2, 4)] * len(trained[1]), (2, 4))
    assert (len(trained[1]), model.aux_weight) == (len(AUXILIARY[name][0]) - 1, AUXILIARY[name][1])


def test_model_without_auxiliary_heads_has_no_weight_for_them() -> None:
    assert Classifier(ModelSpec(name="timm/test_resnet", num_classes=2)).aux_weight == 0


DISTILLED = {
    "timm/deit_tiny_distilled_patch16_224": ["head", "head_dist"],
    "timm/levit_128s": ["head.linear", "head_dist.linear"],
    "timm/repvit_m0_9": ["head.head.l", "head.head_dist.l"],
    "timm/crossvit_tiny_240": ["head.0", "head.1"],
    "timm/volo_d1_224": ["head", "aux_head"],
    "timm/eva02_tiny_patch14_224": ["head"],  # published without a head
    "timm/vit_base_resnet26d_224": ["head"],  # tries a picture out while it is built
}


@pytest.mark.parametrize("name", DISTILLED)
def test_model_with_several_heads_has_all_of_them_replaced(name: str) -> None:
    backbone = build_on_meta(name, 7)
    assert find_heads(backbone) == DISTILLED[name]
    assert {backbone.get_submodule(head).weight.shape[0] for head in DISTILLED[name]} == {7}
    size = own_size(name)
    assert backbone.eval()(torch.empty(2, 3, size, size, device="meta")).shape == (2, 7)


@pytest.mark.parametrize(
    "name", ["resnet18", "densenet121", "vit_b_32", "squeezenet1_1", "inception_v3", "timm/test_vit"]
)
def test_backbone_of_one_channel_takes_gray_pictures(name: str) -> None:
    size = 299 if name == "inception_v3" else 224
    backbone = build_on_meta(name, 2, in_channels=1, image_size=size).eval()
    assert backbone(torch.empty(1, 1, size, size, device="meta")).shape == (1, 2)


def test_new_first_convolution_of_one_channel_keeps_the_spread_of_its_outputs() -> None:
    torch.manual_seed(0)
    gray, colour = (build_backbone("resnet18", 2, channels).conv1 for channels in (1, 3))
    with torch.no_grad():
        ratio = gray(torch.randn(8, 1, 64, 64)).std() / colour(torch.randn(8, 3, 64, 64)).std()  # type: ignore[operator]
    assert float(ratio) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    "name", ["timm/test_efficientnet", "resnet18", "efficientnet_b0", "inception_v3", "squeezenet1_1"]
)
def test_head_dropout_is_the_share_of_features_that_the_head_loses(name: str) -> None:
    backbone = build_backbone(name, 2, dropout=0.4)
    head = backbone.get_submodule(find_heads(backbone)[0])
    seen: list[Tensor] = []
    head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    nn.init.ones_(head.weight)  # type: ignore[arg-type]
    nn.init.zeros_(head.bias)  # type: ignore[arg-type]
    size = FAMILIES.get(name, 64)
    with torch.no_grad():
        torch.manual_seed(0)
        features = torch.ones(64, head.weight.shape[1], *([1, 1] if isinstance(head, nn.Conv2d) else []))  # type: ignore[union-attr,index,operator]
        kept = head.train()(features).flatten() / features[0].numel()
        backbone.eval()(torch.zeros(1, 3, size, size))
        still = head.eval()(features).flatten() / features[0].numel()
    assert float(kept.mean()) == pytest.approx(1, abs=0.05)  # what is kept is scaled up
    assert float(kept.std()) * features[0].numel() ** 0.5 == pytest.approx((0.4 / 0.6) ** 0.5, rel=0.25)
    assert torch.equal(still, torch.ones_like(still))


def test_head_dropout_takes_the_place_of_the_architecture_s_own() -> None:
    own, other = (build_backbone("efficientnet_b0", 2, dropout=rate) for rate in (None, 0.4))
    assert (own.classifier[0].p, other.classifier[0].p) == (0.2, 0.0)  # type: ignore[index,union-attr]


def test_head_with_dropout_has_the_names_of_a_head_without() -> None:
    plain, dropping = (build_backbone("timm/test_resnet", 3, dropout=rate) for rate in (None, 0.5))
    assert list(plain.state_dict()) == list(dropping.state_dict())


@pytest.mark.parametrize(
    ("name", "scale"), [("resnet18", (3 * 512) ** -0.5), ("mobilenet_v2", 0.01), ("vit_b_32", 0.0)]
)
def test_new_head_is_drawn_at_the_scale_of_the_library_s_own(name: str, scale: float) -> None:
    """resnet: torch's uniform of 1/sqrt(features), whose spread is a root of 3 less; mobilenet: 0.01; ViT: zeros."""
    torch.manual_seed(0)
    backbone = build_backbone(name, 200, image_size=32)
    weight = backbone.get_submodule(find_heads(backbone)[0]).weight
    assert float(weight.detach().std()) == pytest.approx(scale, rel=0.05)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d", "wide_resnet50_2"])
def test_each_block_of_an_untrained_resnet_of_bottlenecks_passes_on_what_it_gets(name: str) -> None:
    """And a residual branch of it answers once its last norm has a scale."""
    stage = build_backbone(name, 2).get_submodule("layer1").train()
    block, features = list(stage.children())[-1], torch.randn(4, 256, 8, 8)
    assert torch.equal(block(features), features.relu())
    last = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    nn.init.ones_(last.weight)
    assert not torch.equal(block(features), features.relu())


@pytest.mark.parametrize(
    ("name", "size", "sentence"),
    [
        ("vit_b_32", 100, "vit_b_32 cannot be built for pictures of 100 pixels ("),
        ("maxvit_t", 200, "maxvit_t cannot be built for pictures of 200 pixels ("),
        ("inception_v3", 100, "inception_v3 does not take pictures of 100 pixels ("),
        ("alexnet", 32, "alexnet does not take pictures of 32 pixels ("),
    ],
)
def test_size_that_a_model_cannot_take_is_refused_with_its_own(name: str, size: int, sentence: str) -> None:
    fixed = size if name in ("vit_b_32", "maxvit_t") else None
    with pytest.raises(UsageError) as caught:
        check_size(ModelSpec(name=name, num_classes=2, image_size=fixed), size)
    assert str(caught.value).startswith(sentence)
    assert f"use its own size, {own_size(name)}" in str(caught.value)


def test_vit_is_built_for_the_size_of_the_recipe() -> None:
    spec = build_model_spec(load(model="vit_b_32", image_size=96), 2)
    assert spec.image_size == 96
    check_size(spec, 96)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("timm/resnet50.nothing", "timm has no weights 'nothing' of resnet50; it has "),
        ("timm/xception", "timm has renamed xception to legacy_xception; write model=timm/legacy_xception"),
        ("convnext-tinny", "no model 'convnext-tinny': did you mean 'convnext-tiny' or "),
    ],
)
def test_wrong_name_is_refused_with_the_right_one(name: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_backbone(name, 2)
    assert str(caught.value).startswith(sentence)


def test_mean_needs_a_number_for_each_channel() -> None:
    with pytest.raises(ValueError, match="a number for each channel of the model, got 3 and 1 for 1"):
        ModelSpec(name="resnet18", num_classes=2, in_channels=1, mean=(0.5,) * 3)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "swin_t"])
def test_measured_figures_are_those_of_torchvision_s_table(name: str) -> None:
    meta = torchvision.models.get_model_weights(name).DEFAULT.meta
    parameters, gflops = measure(name, own_size(name))
    assert (parameters, gflops) == (meta["num_params"], pytest.approx(meta["_ops"], rel=0.02))


# Attention and LSTM give tuples, swin's attention reads the weights of its layers, inception_v3's second head is still
# in evaluation, coat calls layers again, and cait's class token is a parameter that goes into a module.
ODD_LAYERS = ("vit_b_32", "swin_t", "inception_v3", "timm/sequencer2d_s", "timm/coat_tiny", "timm/cait_xxs24_224")
SIDES = {"timm/sequencer2d_s": 56}
"""An LSTM is followed step by step: more pixels take more time and have the same layers."""


@pytest.mark.parametrize("name", ["convnext_tiny", "googlenet", "timm/test_resnet", *ODD_LAYERS])
def test_layers_of_a_summary_add_up_to_the_model(name: str) -> None:
    summary = summarise(name, SIDES.get(name), 10, 3)
    assert sum(layer.parameters for layer in summary.layers) == summary.facts.parameters
    assert [layer for layer in summary.layers if layer.kind == "Linear"][-1].output == [1, 10]


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert run_command(main, list(argv)) == 0
    return capsys.readouterr().out


def test_list_names_every_model_of_both_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in run(capsys, "--json").splitlines()]
    assert [row["name"] for row in rows] == [*list_torchvision(), *(f"timm/{name}" for name in timm.list_models())]
    resnet = next(row for row in rows if row["name"] == "resnet50")
    assert (resnet["parameters"], resnet["gflops"], resnet["image_size"]) == (25_557_032, 4.089, 224)
    assert resnet["weights"] == ["IMAGENET1K_V2", "IMAGENET1K_V1"]


def test_filtered_list_has_the_figures_of_timm_too(capsys: pytest.CaptureFixture[str]) -> None:
    row = json.loads(run(capsys, "timm/test_resn*", "--json"))
    theirs = timm.create_model("test_resnet")
    assert row["parameters"] == sum(parameter.numel() for parameter in theirs.parameters())
    assert (row["image_size"], row["weights"]) == (160, ["r160_in1k"])


def test_list_is_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "mobilenet_v2").splitlines()[-1] == "published weights: IMAGENET1K_V2, IMAGENET1K_V1"
    rows = run(capsys, "mobilenet_v?").splitlines()
    assert [row.split() for row in rows] == [
        ["name", "parameters", "GFLOPs", "pixels", "weights"],
        ["mobilenet_v2", "3,504,872", "0.30", "224", "IMAGENET1K_V2,", "IMAGENET1K_V1"],
    ]


def test_alias_is_shown_beside_its_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert "(also shufflenetv2)" in run(capsys, "shufflenet_v2_*")


def test_whole_name_gives_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, "resnet18", "--num-classes", "2").splitlines()
    assert lines[1].split() == ["conv1", "Conv2d", "1x64x112x112", "9,408"]
    assert "fc                     Linear                  1x2                            1,026" in lines
    assert "resnet18: 11,177,538 parameters, 1.814 GFLOPs at 224 pixels" in lines
    assert lines[-1] == "published weights: IMAGENET1K_V1"


def test_summary_of_a_size_has_its_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads(run(capsys, "timm/test_resnet", "--size", "64", "--channels", "1", "--json"))
    assert summary["facts"]["image_size"] == 64
    assert summary["layers"][0]["output"][-1] == 32


def test_layer_that_is_called_again_has_its_parameters_once() -> None:
    rows = [layer for layer in summarise("resnet18", None, None, 3).layers if layer.name == "layer1.0.relu"]
    assert len(rows) == 2
    queries = [layer for layer in summarise("vit_b_32", None, None, 3).layers if layer.kind == "MultiheadAttention"]
    assert [(layer.output, layer.parameters) for layer in queries] == [([1, 50, 768], 3 * 768 * 769)] * 12


def test_model_with_a_convolution_of_three_dimensions_can_be_built() -> None:
    model = Classifier(ModelSpec(name="timm/lambda_resnet26t", num_classes=2))
    assert model.backbone.stem.conv1.conv.weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[union-attr,operator]


@pytest.mark.parametrize("weights", ["none", "pretrained"])
def test_recipe_of_a_tag_that_timm_lacks_is_refused_with_those_it_has(weights: str) -> None:
    with pytest.raises(UsageError, match="timm has no weights 'nothing' of resnet50; it has "):
        resolve_recipe(load(model="timm/resnet50.nothing", weights=weights))


@pytest.mark.parametrize("option", [["--size", "-5"], ["--size", "0"], ["--num-classes", "1"]])
def test_number_that_no_model_has_is_refused(option: list[str]) -> None:
    with pytest.raises(UsageError, match=f"{option[0]}: must be a whole number of at least"):
        main(["resnet18", *option])


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["alexnet", "--size", "28"], "alexnet does not take pictures of 28 pixels and 3 channels ("),
        (["timm/test_vit.nothing"], "timm has no weights 'nothing' of test_vit; it has r160_in1k"),
        (["resnt1"], "no model 'resnt1': did you mean 'resnet18' or "),
        (["resnet", "--size", "64"], "--size, --num-classes and --channels are for the summary of one model"),
    ],
)
def test_mistake_is_told_in_a_sentence(argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(main, argv) == 2
    assert capsys.readouterr().err.startswith(f"error: {sentence}")
