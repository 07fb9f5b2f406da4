"""Class activation maps: the closed form where there is one, at the place of the evidence, for every family."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer.contract.model.cam import _count_prefix, _Seen, explain
from trainer.contract.model.model import Classifier, ModelSpec, find_head

SIDE = 64


def make(name: str, size: int | None = None) -> Classifier:
    torch.manual_seed(0)
    return Classifier(ModelSpec(name=name, num_classes=3, image_size=size)).eval()


def make_images(count: int = 2, side: int = SIDE) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_grad_cam_of_a_linear_head_behind_average_pooling_is_cam() -> None:
    """Zhou et al. 2016: the map of class c is the sum of the feature maps, each times its weight for c."""
    model, images = make("resnet18"), make_images()
    features: list[torch.Tensor] = []
    backbone = model.backbone
    handle = backbone.get_submodule("layer4").register_forward_hook(lambda *hooked: features.append(hooked[2].detach()))
    with torch.no_grad():
        model(images)
    all_maps = torch.einsum("ck,bkhw->bchw", backbone.get_parameter("fc.weight").detach(), features[0])
    classes = all_maps.amax(dim=(2, 3)).argmax(dim=1)  # for which something speaks
    found = explain(model, images, classes, "grad")
    handle.remove()
    maps = all_maps[torch.arange(2), classes].clamp(min=0)
    large = nn.functional.interpolate(maps[:, None], (SIDE, SIDE), mode="bilinear")[:, 0]
    assert (large.amax(dim=(1, 2)) > 0).all()
    assert torch.allclose(found, large / large.amax(dim=(1, 2), keepdim=True), atol=1e-5)


class Bright(nn.Module):
    """Class 1 is brightness above the middle, class 0 nothing: the evidence is where a picture is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.spots = nn.Sequential(nn.Conv2d(3, 1, 4, stride=4), nn.ReLU())
        self.head = nn.Linear(1, 2, bias=False)
        nn.init.constant_(self.spots[0].weight, 1 / 48)
        nn.init.constant_(self.spots[0].bias, -0.5)
        self.head.weight.data = torch.tensor([[0.0], [1.0]])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.head(self.spots(images).mean(dim=(2, 3)))
        return answers


@pytest.mark.parametrize("method", ["layer", "grad"])
@pytest.mark.parametrize(("top", "left"), [(0, 0), (8, 40), (48, 24)])
def test_a_map_is_highest_where_the_evidence_is_and_zero_for_a_class_without_any(
    method: str, top: int, left: int
) -> None:
    model = make("resnet18")
    model.backbone = Bright()
    images = torch.zeros((2, 3, SIDE, SIDE), dtype=torch.uint8)
    images[:, :, top : top + 8, left : left + 8] = 255
    found = explain(model, images, torch.tensor([1, 0]), method)  # type: ignore[arg-type]
    row, column = divmod(int(found[0].argmax()), SIDE)
    assert top <= row < top + 8
    assert left <= column < left + 8
    assert found[0].max() == 1
    assert not found[1].any()


@pytest.mark.parametrize(
    "name",
    [
        "squeezenet1_1", "vgg11", "densenet121", "mobilenet_v3_small", "shufflenet_v2_x0_5", "efficientnet_b0",
        "convnext_tiny", "swin_t", "vit_b_32", "googlenet", "timm/test_vit", "timm/test_resnet", "timm/test_convnext",
    ],
)  # fmt: skip
def test_every_family_has_a_map_that_depends_on_the_class(name: str) -> None:
    size = {"vit_b_32": 96, "timm/test_vit": None}.get(name)
    model = make(name, size)
    weight = model.backbone.get_parameter(f"{find_head(model.backbone)}.weight")
    if not weight.any():  # some begin so, and then nothing speaks for any class
        nn.init.normal_(weight)
    side = {"timm/test_vit": 160}.get(name, 96)
    first, second = (explain(model, make_images(side=side), torch.tensor([label] * 2)) for label in (0, 1))
    for found in (first, second):
        assert found.shape == (2, side, side)
        assert found.isfinite().all()
        assert (found.amax(dim=(1, 2)) == 1).all()
        assert found.min() >= 0
    assert not torch.equal(first, second)


def test_weights_are_left_without_gradients_and_the_answer_as_it_was() -> None:
    model, images = make("mobilenet_v3_small"), make_images()
    with torch.inference_mode():
        before = model(images)
    explain(model, images, torch.tensor([0, 1]))
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.inference_mode():
        assert torch.equal(model(images), before)


@pytest.mark.parametrize(("registers", "grid"), [(0, 2), (4, 2), (4, 1), (4, 3)])
def test_class_and_register_tokens_are_in_no_map_however_small_the_grid(registers: int, grid: int) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    backbone = timm.models.vision_transformer.VisionTransformer(
        img_size=8 * grid, patch_size=8, embed_dim=12, depth=2, num_heads=2, reg_tokens=registers, num_classes=3
    )
    number = 1 + registers + grid * grid
    tokens = torch.arange(number, dtype=torch.float32)[None, :, None]
    seen = _Seen(tokens, "BNC", _count_prefix(backbone))
    assert backbone.blocks(torch.zeros(1, number, 12)).shape[1] == number  # as many as the model has
    assert seen.to_maps(tokens).flatten().tolist() == list(range(1 + registers, number))
