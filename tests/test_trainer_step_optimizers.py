"""Optimizers: who is moved how, resuming to the bit, freezing and releasing."""

from __future__ import annotations

import copy
import functools
import io
from typing import Any

import pytest
import torch
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from shards.errors import UsageError
from trainer.contract.model.backbone import build_backbone, build_without_memory
from trainer.contract.model.head import find_head
from trainer.contract.model.model import Classifier, ModelSpec
from trainer.recipes.file import load_recipe
from trainer.recipes.options.optim import OPTIMIZERS, OptimOptions
from trainer.step.freeze import apply_freeze, list_frozen
from trainer.step.groups import group_parameters
from trainer.step.layers import measure_depths
from trainer.step.optimizers import build_optimizer, measure_state

torch.set_num_threads(1)  # tiny models: a team of threads costs more than it brings, above all on shared cores

NAMES = tuple(OPTIMIZERS)  # what is added there is tested by all that is parametrised here
MODEL = "timm/test_efficientnet_gn"
HEAD = "classifier"


def make_model(name: str = MODEL) -> Classifier:
    torch.manual_seed(0)
    return Classifier(ModelSpec(name=name, num_classes=3))


class Small(nn.Module):
    """A backbone with all kinds of tensors: filters, depthwise ones, norms, matrices, channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4)
        self.norm = nn.GroupNorm(2, 8)
        self.blocks = nn.Sequential(
            nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1)), nn.Conv2d(16, 16, 3)
        )
        self.hidden = nn.Linear(16, 16)
        self.classifier = nn.Linear(16, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.blocks(self.norm(self.stem(images)).relu()).relu().mean((2, 3))
        logits: Tensor = self.classifier(self.hidden(features).relu())
        return logits


def put_backbone(backbone: nn.Module) -> Classifier:
    model = copy.copy(make_shell())
    model._modules = {"backbone": backbone}
    return model


@functools.cache
def make_shell() -> Classifier:
    """Made once: what stands around the backbone never changes."""
    return make_model()


def make_small(dtype: torch.dtype = torch.float32) -> Classifier:
    torch.manual_seed(0)
    model = put_backbone(Small().to(dtype, memory_format=torch.channels_last))
    model._buffers = {name: buffer.to(dtype) for name, buffer in make_shell().named_buffers(recurse=False)}
    return model


def make_options(name: str, **options: Any) -> OptimOptions:
    return OptimOptions.model_validate({"name": name, "peak_lr": 0.003, "weight_decay": 0.1, **options})


def take_step(model: Classifier, optimizer: torch.optim.Optimizer, number: int) -> None:
    """A real step, the rate of which is another in each."""
    generator = torch.Generator().manual_seed(number)
    images = torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)
    for group in optimizer.param_groups:
        group["lr"] = 0.003 / (1 + number) * group["lr_scale"]
    optimizer.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(model(images), torch.arange(4) % 3).backward()
    optimizer.step()


def push(model: Classifier, optimizer: torch.optim.Optimizer, number: int) -> None:
    """A step with drawn gradients, the same whatever the weights are; what is frozen has none."""
    generator = torch.Generator().manual_seed(number)
    for parameter in model.parameters():
        gradient = torch.randn(parameter.shape, generator=generator)
        parameter.grad = gradient if parameter.requires_grad else None
    optimizer.step()


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def find_changed(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


def through_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("stop", "dtype"), [(3, torch.float32), (6, torch.float32), (3, torch.float64)])
def test_resumed_steps_are_those_of_the_run_that_was_not_stopped(name: str, stop: int, dtype: torch.dtype) -> None:
    """Lookahead draws back after step 6: before the stop and after it."""
    options = make_options(name, layer_decay=0.9)
    model = make_small(dtype)
    optimizer = build_optimizer(model, options, HEAD)
    for number in range(8):
        take_step(model, optimizer, number)
        if number == stop - 1:
            saved = through_file({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    resumed = make_small(dtype)
    again = build_optimizer(resumed, options, HEAD)
    resumed.load_state_dict(saved["model"])
    again.load_state_dict(saved["optimizer"])
    for number in range(stop, 8):
        take_step(resumed, again, number)
    assert find_changed(resumed, copy_weights(model)) == set()
    assert find_changed(resumed, copy_weights(make_small(dtype))) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("name", NAMES)
def test_loss_falls_to_a_half_at_a_rate_of_the_usual_ones(name: str) -> None:
    assert any(train(name, rate) < 0.5 for rate in (0.03, 0.1, 0.003))


def train(name: str, rate: float) -> float:
    """Return the loss after 40 steps by that before them."""
    model = make_small()
    optimizer = build_optimizer(model, make_options(name, peak_lr=rate, weight_decay=0.0), HEAD)
    images = 255 * torch.eye(3)[:, :, None, None].expand(3, 3, 32, 32)  # red, green, blue
    losses = []
    for _ in range(40):
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(images), torch.arange(3))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses[-1] / losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_quadratic_falls_to_a_tenth(name: str) -> None:
    """(w - 3) ** 2 from w = 1, in 200 steps of rate 0.1."""
    model = make_one_number()
    optimizer = build_optimizer(model, make_options(name, peak_lr=0.1, weight_decay=0.0), HEAD)
    backbone: Any = model.backbone
    for _ in range(200):
        optimizer.zero_grad(set_to_none=True)
        loss = (backbone.hidden.weight - 3).square().sum()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.4


@pytest.mark.parametrize("name", NAMES)
def test_decay_is_in_the_averages_of_the_gradient_unless_it_is_decoupled(name: str) -> None:
    """Whatever an optimizer remembers of its first gradients, it remembers alike with and without decoupled decay."""
    states = []
    for decay in (0.0, 0.5):
        model = make_small()
        optimizer = build_optimizer(model, make_options(name, weight_decay=decay), HEAD)
        push(model, optimizer, 0)
        remembered = [optimizer.state[parameter] for parameter in model.parameters()]
        states.append([value for state in remembered for value in state.values() if isinstance(value, Tensor)])
    same = all(torch.equal(value, other) for value, other in zip(*states, strict=True))
    assert same == OPTIMIZERS[name].decoupled


FROZEN = ["stem", "norm", "blocks.0"]


def freeze(model: Classifier) -> set[str]:
    apply_freeze(model, FROZEN, frozen=True)
    return {f"backbone.{name}" for name in list_frozen(model, FROZEN)}


@pytest.mark.parametrize("name", NAMES)
def test_frozen_weights_do_not_move_and_gather_nothing(name: str) -> None:
    model = make_small()
    frozen = freeze(model)
    optimizer = build_optimizer(model, make_options(name), HEAD, late=list_frozen(model, FROZEN))
    before = copy_weights(model)
    for number in range(7):
        push(model, optimizer, number)
    assert find_changed(model, before) == set(before) - frozen
    assert not any(parameter in optimizer.state for name, parameter in model.named_parameters() if name in frozen)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("resumed", [False, True])
def test_released_weights_move_as_if_the_optimizer_were_new(name: str, resumed: bool) -> None:
    """After 4 frozen steps: a fresh optimizer over the same weights takes the same 8 steps with them."""
    model = make_small()
    frozen = freeze(model)
    late = list_frozen(model, FROZEN)
    optimizer = build_optimizer(model, make_options(name), HEAD, late=late)
    for number in range(4):
        push(model, optimizer, number)
    if resumed:
        state = through_file(optimizer.state_dict())
        optimizer = build_optimizer(model, make_options(name), HEAD, late=late)
        optimizer.load_state_dict(state)
    apply_freeze(model, FROZEN, frozen=False)
    fresh = copy.deepcopy(model)
    new = build_optimizer(fresh, make_options(name), HEAD, late=late)
    before = copy_weights(model)
    for number in range(4, 12):
        push(model, optimizer, number)
        push(fresh, new, number)
    released = {name: parameter for name, parameter in copy_weights(model).items() if name in frozen}
    assert all(
        torch.equal(parameter, released[name]) for name, parameter in copy_weights(fresh).items() if name in frozen
    )
    assert find_changed(model, before) == set(before)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_of_the_last_step_before_freezing_moves_nothing(name: str) -> None:
    model = make_small()
    optimizer = build_optimizer(model, make_options(name), HEAD)
    take_step(model, optimizer, 0)
    frozen = freeze(model)
    before = copy_weights(model)
    optimizer.step()  # with the gradients that are still there
    assert find_changed(model, before) == set(before) - frozen


def test_parameters_that_stay_frozen_are_not_in_the_optimizer() -> None:
    model = make_small()
    freeze(model)
    optimizer = build_optimizer(model, make_options("adamw"), HEAD)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("name", NAMES)
def test_optimizer_holds_every_parameter_once(name: str) -> None:
    model = make_small()
    optimizer = build_optimizer(model, make_options(name, layer_decay=0.8), HEAD)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_bytes_of_the_state_are_known_before_the_first_step(name: str) -> None:
    model, options = make_small(), make_options(name, layer_decay=0.8)
    optimizer = build_optimizer(model, options, HEAD)
    before = copy_weights(model)
    measured = measure_state(optimizer, options)
    assert (dict(optimizer.state), find_changed(model, before)) == ({}, set())
    take_step(model, optimizer, 0)
    held = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    assert measured == sum(value.nbytes for value in held) > 0


@pytest.mark.parametrize("name", NAMES)
def test_tensors_of_one_dimension_are_not_decayed(name: str) -> None:
    """With gradients of zero only decay moves anything; sgd and adam move by it through their momentum."""
    model = make_small()
    optimizer = build_optimizer(model, make_options(name), HEAD)
    before = copy_weights(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert find_changed(model, before) == {name for name, tensor in before.items() if tensor.ndim > 1}


def test_tokens_and_position_embeddings_of_timm_are_not_decayed() -> None:
    model = make_model("timm/test_vit")
    optimizer = build_optimizer(model, make_options("adamw"), "head")
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    backbone: Any = model.backbone
    tensors = (backbone.pos_embed, backbone.cls_token, backbone.patch_embed.proj.weight)
    assert [decay[id(tensor)] for tensor in tensors] == [0.0, 0.0, 0.1]


@pytest.mark.parametrize(
    ("name", "spared"), [("vit_b_16", 2), ("swin_t", 12), ("convnext_tiny", 18), ("maxvit_t", 22), ("resnet18", 0)]
)
def test_what_torchvision_does_not_name_is_not_decayed_either(name: str, spared: int) -> None:
    """Tokens, embeddings and biases of positions, scales: a bias of each of swin_t's 12 blocks, for one."""
    with torch.device("meta"):
        model = Classifier(ModelSpec(name=name, num_classes=3))
    groups = group_parameters(model, make_options("sgd"), find_head(model.backbone))
    undecayed = [p for group in groups if not group["weight_decay"] for p in group["params"] if p.ndim > 1]
    assert len(undecayed) == spared


# Closed forms of the first step from weight 1 with gradient 0.5, rate 0.1 and decay 0.2 on a matrix of one number.
FIRST_STEPS = {
    "sgd": 1 - 0.1 * (1 + 0.9) * (0.5 + 0.2),  # Nesterov: gradient plus 0.9 of a momentum that is the gradient
    "adam": 1 - 0.1,  # the sign of the decayed gradient
    "adamw": (1 - 0.1 * 0.2) - 0.1,
    "lion": (1 - 0.1 * 0.2) - 0.1,
    "radam": (1 - 0.1 * 0.2) - 0.1 * 0.5,  # not yet rectified: momentum, corrected for its beginning
    "ranger": (1 - 0.1 * 0.2) - 0.1 * 0.5,
    "adabelief": (1 - 0.1 * 0.2) - 0.1 * 0.5,
    "lamb": 1 - 0.1 * 1.2 * (1 / 1.2),  # trust ratio: weight by update
}


class OneNumber(nn.Module):
    """A backbone of one weight and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(1, 1, bias=False)
        self.classifier = nn.Linear(1, 3)


def make_one_number() -> Classifier:
    torch.manual_seed(0)
    backbone = OneNumber()
    nn.init.ones_(backbone.hidden.weight)
    return put_backbone(backbone)


@pytest.mark.parametrize("name", FIRST_STEPS)
def test_first_step_is_the_papers(name: str) -> None:
    model = make_one_number()
    backbone: Any = model.backbone
    optimizer = build_optimizer(model, make_options(name, peak_lr=0.1, weight_decay=0.2), HEAD)
    backbone.hidden.weight.grad = torch.full((1, 1), 0.5)
    optimizer.step()
    assert backbone.hidden.weight.item() == pytest.approx(FIRST_STEPS[name], rel=1e-5)


def test_lookahead_draws_the_weights_back_to_slow_ones_from_the_start() -> None:
    """Zhang et al. 2019, algorithm 1, beside plain RAdam that is started anew from the drawn weights."""
    ranger, radam = make_one_number(), make_one_number()
    lookahead = build_optimizer(ranger, make_options("ranger", lookahead_steps=2, lookahead_share=0.25), HEAD)
    plain = build_optimizer(radam, make_options("radam"), HEAD)
    slow = copy_weights(radam)
    for number in range(6):
        push(ranger, lookahead, number)
        push(radam, plain, number)
        if number % 2:
            with torch.no_grad():
                for name, parameter in radam.named_parameters():
                    slow[name] += 0.25 * (parameter - slow[name])
                    parameter.copy_(slow[name])
        for name, parameter in ranger.named_parameters():
            torch.testing.assert_close(parameter, radam.get_parameter(name))


def test_lamb_without_decay_still_has_its_trust_ratio() -> None:
    model = make_one_number()
    backbone: Any = model.backbone
    nn.init.constant_(backbone.hidden.weight, 3.0)
    optimizer = build_optimizer(model, make_options("lamb", peak_lr=0.1, weight_decay=0.0), HEAD)
    backbone.hidden.weight.grad = torch.full((1, 1), 0.5)
    optimizer.step()
    assert backbone.hidden.weight.item() == pytest.approx(3 - 0.1 * 3, rel=1e-5)


def test_lamb_does_not_clip_by_itself() -> None:
    """Gradients 1,000 times as large give the same step; clipped ones would lose the ratio between their squares."""
    moved = []
    for size in (1.0, 1000.0):
        model = make_small()
        optimizer = build_optimizer(model, make_options("lamb"), HEAD)
        for number, factor in enumerate((1.0, 0.01)):
            generator = torch.Generator().manual_seed(number)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator) * size * factor
            optimizer.step()
        moved.append(copy_weights(model))
    for name, tensor in moved[0].items():
        torch.testing.assert_close(tensor, moved[1][name], rtol=1e-3, atol=1e-5)


def test_muon_turns_hidden_filters_to_even_singular_values() -> None:
    """The first update of a filter has singular values near 0.2 * sqrt(longer side)."""
    model = make_model()
    optimizer = build_optimizer(model, make_options("muon", peak_lr=0.01, weight_decay=0.0), HEAD)
    before = copy_weights(model)
    push(model, optimizer, 0)
    for name in list_hidden(model):
        step = ((before[name] - model.get_parameter(name)) / 0.01).detach().flatten(1)
        values = torch.linalg.svdvals(step) / (0.2 * max(step.shape) ** 0.5)
        assert 0.5 < float(values.min()) < float(values.max()) < 1.5


def list_hidden(model: Classifier) -> set[str]:
    """Matrices and filters that are neither depthwise nor in the head."""
    wide = {name: parameter for name, parameter in model.named_parameters() if parameter.ndim > 1}
    depthwise = {name for name, parameter in wide.items() if parameter.ndim == 4 and parameter.shape[1] == 1}
    assert depthwise
    return {name for name in wide if HEAD not in name} - depthwise


def test_muon_of_a_matrix_is_torchs() -> None:
    model = make_small()
    backbone: Any = model.backbone
    optimizer = build_optimizer(model, make_options("muon", peak_lr=0.01), HEAD)
    matrix = nn.Parameter(backbone.hidden.weight.detach().clone())
    peer = torch.optim.Muon([matrix], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for number in range(4):
        push(model, optimizer, number)
        matrix.grad = backbone.hidden.weight.grad.clone()
        peer.step()
    torch.testing.assert_close(backbone.hidden.weight, matrix, rtol=1e-3, atol=1e-4)


def test_muon_leaves_the_rest_to_adamw() -> None:
    """Three steps of torch's own: the first alone does not tell it from NAdamW."""
    model, peer = make_model(), make_model()
    optimizer = build_optimizer(model, make_options("muon", peak_lr=0.01, weight_decay=0.0), HEAD)
    adamw = torch.optim.AdamW(peer.parameters(), lr=0.01, weight_decay=0.0)
    for number in range(3):
        push(model, optimizer, number)
        push(peer, adamw, number)
    others = {
        name for name, p in model.named_parameters() if not torch.allclose(p, peer.get_parameter(name), 1e-4, 1e-6)
    }
    assert others == list_hidden(model)


def test_layers_below_the_head_are_slower_by_powers() -> None:
    model = make_model()
    optimizer = build_optimizer(model, make_options("adamw", layer_decay=0.5), HEAD)
    scale = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    got = {name: scale[id(parameter)] for name, parameter in model.backbone.named_parameters()}
    assert got["classifier.weight"] == got["classifier.bias"] == 1.0
    assert got["conv_head.weight"] == got["blocks.4.0.conv_pw.weight"] == 0.5
    assert got["blocks.3.0.conv_pw.weight"] == got["blocks.3.0.bn1.weight"] == 0.25
    assert got["conv_stem.weight"] == 0.5**6


def test_one_rate_for_all_layers_has_no_more_groups_than_decay_needs() -> None:
    optimizer = build_optimizer(make_model(), make_options("adamw"), HEAD)
    assert [(group["weight_decay"], group["lr_scale"]) for group in optimizer.param_groups] == [(0.1, 1), (0.0, 1)]


DEPTHS = {
    "resnet18": {"conv1.weight": 9, "bn1.weight": 9, "layer1.0.conv1.weight": 8, "layer1.1.bn2.bias": 7,
                 "layer4.0.downsample.0.weight": 2, "layer4.1.conv1.weight": 1, "fc.weight": 0},
    "squeezenet1_1": {"features.0.weight": 9, "features.3.squeeze.weight": 8, "features.12.expand3x3.bias": 1,
                      "classifier.1.weight": 0},
    "mobilenet_v3_small": {"features.0.0.weight": 14, "features.0.1.bias": 14, "features.12.0.weight": 2,
                           "classifier.0.weight": 1, "classifier.3.weight": 0},
    "densenet121": {"features.conv0.weight": 62, "features.denseblock1.denselayer1.conv1.weight": 61,
                    "features.transition1.conv.weight": 55, "features.norm5.bias": 1, "classifier.bias": 0},
    "timm/test_resnet": {"conv1.0.weight": 5, "layer1.0.conv1.weight": 4, "fc.weight": 0},
}  # fmt: skip


@pytest.mark.parametrize("name", DEPTHS)
def test_layers_are_counted_from_the_head(name: str) -> None:
    backbone = build_backbone(name, 3)
    depths = measure_depths(backbone, find_head(backbone))
    assert set(depths) == {parameter for parameter, _ in backbone.named_parameters()}
    assert {parameter: depths[parameter] for parameter in DEPTHS[name]} == DEPTHS[name]
    assert set(depths.values()) == set(range(max(depths.values()) + 1))


@pytest.mark.parametrize(
    "name", ["test_vit", "convnext_atto", "deit_tiny_distilled_patch16_224", "levit_128s", "mobilenetv4_conv_small"]
)
def test_rates_of_layers_are_those_of_timm(name: str) -> None:
    backbone = build_without_memory(lambda: build_backbone(f"timm/{name}", 3))
    names = {id(parameter): name for name, parameter in backbone.named_parameters()}
    groups = param_groups_layer_decay(backbone, layer_decay=0.5)
    scales = {names[id(parameter)]: group["lr_scale"] for group in groups for parameter in group["params"]}
    depths = measure_depths(backbone, find_head(backbone))
    assert scales == {name: pytest.approx(0.5**depth) for name, depth in depths.items()}


def test_vision_transformer_has_a_layer_for_each_block() -> None:
    with torch.device("meta"):
        backbone = build_backbone("vit_b_32", 3)
    depths = measure_depths(backbone, find_head(backbone))
    blocks = [depths[f"encoder.layers.encoder_layer_{i}.mlp.0.weight"] for i in range(12)]
    assert blocks == list(range(12, 0, -1))
    assert [depths[name] for name in ("class_token", "conv_proj.weight", "encoder.pos_embedding")] == [13, 13, 13]
    assert depths["encoder.ln.weight"] == 1


@pytest.mark.parametrize("layer_decay", [1.0, 0.7])
def test_groups_are_the_same_before_and_after_the_release(layer_decay: float) -> None:
    """A run that is resumed after the release builds its groups from a model that is frozen no more."""
    model, options = make_small(), make_options("adamw", layer_decay=layer_decay)
    late = list_frozen(model, FROZEN)
    shapes = []
    for frozen in (True, False):
        apply_freeze(model, FROZEN, frozen=frozen)
        groups = build_optimizer(model, options, HEAD, late=late).param_groups
        shapes.append([[id(parameter) for parameter in group["params"]] for group in groups])
    assert shapes[0] == shapes[1]


def test_release_gives_gradient_back_and_names_the_frozen_norms_until_then() -> None:
    model = make_model("timm/test_efficientnet")
    norms = apply_freeze(model, ["backbone"], frozen=True)
    assert norms == [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {name for name, p in model.backbone.named_parameters() if p.requires_grad} == {
        "classifier.weight", "classifier.bias",
    }  # fmt: skip
    assert apply_freeze(model, ["backbone"], frozen=False) == []
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_freezing_what_does_not_exist_or_all_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^freeze: no parameter of timm/test_efficientnet_gn begins with 'block'; it"):
        apply_freeze(make_model(), ["block"], frozen=True)
    with pytest.raises(UsageError, match=r"^freeze leaves nothing to train; \[backbone\] freezes all except the head$"):
        apply_freeze(make_model(), ["backbone", "classifier"], frozen=True)


DEFAULTS = {
    "sgd": {"weight_decay": 1e-4, "momentum": 0.9},
    "adam": {"weight_decay": 0.0, "betas": (0.9, 0.999), "eps": 1e-8},
    "adamw": {"weight_decay": 0.05, "betas": (0.9, 0.999), "eps": 1e-8},
    "lion": {"weight_decay": 0.05, "betas": (0.9, 0.99)},
    "muon": {"weight_decay": 0.05, "momentum": 0.95, "betas": (0.9, 0.999), "eps": 1e-8},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_resolved_options_are_those_that_the_optimizer_uses(name: str) -> None:
    optim = load_recipe("smoke", ["data=x", f"optim={{name: {name}}}"]).optim
    shown = {option: value for option, value in optim if value is not None}
    assert shown == {"name": name, "peak_lr": 1e-3, "layer_decay": 1.0, **DEFAULTS[name]}
    assert OptimOptions.model_validate(optim.model_dump(mode="json")) == optim


def list_users(option: str) -> str:
    return " or ".join(name for name, row in OPTIMIZERS.items() if option in row.uses)


REFUSED = {
    "optim.momentum=0.9": (  # sgd's default
        f"optim: adamw does not use momentum, got momentum=0.9; leave it out (null), or use {list_users('momentum')}"
    ),
    "optim.momentum=0.5": (
        f"optim: adamw does not use momentum, got momentum=0.5; leave it out (null), or use {list_users('momentum')}"
    ),
    "optim={name: lion, eps: 1.0e-7}": (
        f"optim: lion does not use eps, got eps=1e-07; leave it out (null), or use {list_users('eps')}"
    ),
    "optim.lookahead_steps=5": (
        "optim: adamw does not use lookahead_steps, got lookahead_steps=5; leave it out (null), "
        f"or use {list_users('lookahead_steps')}"
    ),
    "optim.betas=[0.9, 1]": "optim.betas: each beta must be at least 0 and below 1, got [0.9, 1]",
    "optim.layer_decay=1.5": "optim.layer_decay: input should be less than or equal to 1, got 1.5",
}


@pytest.mark.parametrize("option", REFUSED)
def test_option_that_the_optimizer_does_not_use_is_refused(option: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe("smoke", ["data=x", option])
    assert str(caught.value) == REFUSED[option]


@pytest.mark.parametrize("before", NAMES)
@pytest.mark.parametrize("after", NAMES)
def test_resolved_recipe_can_be_given_another_optimizer(before: str, after: str) -> None:
    """As a sweep does; what was not given is then the new one's own."""
    resolved = OptimOptions.model_validate({"name": before, "peak_lr": 0.3})
    whole = resolved.model_dump(mode="json") | {"name": after}
    given = resolved.model_dump(mode="json", exclude_unset=True) | {"name": after}
    assert OptimOptions.model_validate(whole).name == after
    assert OptimOptions.model_validate(given) == OptimOptions.model_validate({"name": after, "peak_lr": 0.3})


def test_unknown_optimizer_is_refused_with_those_that_exist() -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe("smoke", ["data=x", "optim.name=adan"])
    names = ", ".join(NAMES)
    assert str(caught.value) == f"optim.name: the optimizers are {names}, got 'adan'; did you mean 'adam'?"
    with pytest.raises(UsageError, match=r"^optim\.name: the optimizers are .*, got None$"):
        load_recipe("smoke", ["data=x", "optim.name=null"])
