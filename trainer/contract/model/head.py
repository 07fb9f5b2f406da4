"""The head, the layer that maps features to classes: how to find it in any model and replace it."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from shards.errors import UsageError

_AUXILIARY: Final = ("AuxLogits.fc", "aux1.fc2", "aux2.fc2")
"""Auxiliary heads of torchvision's inception_v3 and googlenet."""


class _DroppingLinear(nn.Linear):
    """A linear layer with dropout on its input; parameter names are those of the plain layer."""

    dropout = 0.0

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, the name of torch
        return super().forward(functional.dropout(input, self.dropout, self.training))


class _DroppingConv2d(nn.Conv2d):
    """A convolution with dropout of whole channels on its input."""

    dropout = 0.0

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, the name of torch
        return super().forward(functional.dropout2d(input, self.dropout, self.training))


def find_head(backbone: nn.Module) -> str:
    """Return the name of the module that maps features to classes, the first if there are several.

    >>> import torchvision.models
    >>> find_head(torchvision.models.get_model("squeezenet1_1", weights=None, num_classes=2))
    'classifier.1'
    """
    return find_heads(backbone)[0]


def find_heads(backbone: nn.Module) -> list[str]:
    """Return the names of all modules that map features to classes: the head, then distilled and auxiliary ones.

    Raises:
        UsageError: The model has no layer for classes.
    """
    cfg = getattr(backbone, "pretrained_cfg", None)
    if cfg is not None:  # from timm's metadata; a tuple if several heads are averaged
        said = cfg.get("classifier") or ()
        heads = [said] if isinstance(said, str) else list(said)
    else:
        layers = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
        named = dict(backbone.named_modules())
        heads = [layers[-1], *(name for name in _AUXILIARY if name in named)]
    _refuse_odd(backbone, heads)
    return heads


def _refuse_odd(backbone: nn.Module, heads: list[str]) -> None:
    modules = dict(backbone.named_modules())
    odd = [name for name in heads if not isinstance(modules.get(name), nn.Linear | nn.Conv2d)]
    if odd or not heads:
        what = f"its {odd[0]} is {type(modules.get(odd[0])).__name__}" if odd else "it names none"
        raise UsageError(
            f"{type(backbone).__name__} has no linear layer for classes to replace ({what}); use another model"
        )


def is_auxiliary(name: str) -> bool:
    """Return whether a tensor belongs to an auxiliary head, which only training uses.

    >>> is_auxiliary("aux1.conv.bn.weight"), is_auxiliary("fc.weight")
    (True, False)
    """
    return name.startswith(tuple(f"{head.partition('.')[0]}." for head in _AUXILIARY))


def replace_heads(backbone: nn.Module, num_classes: int, dropout: float | None) -> None:
    """Give every head of a model `num_classes` outputs, with weights drawn at the scale of the original head.

    Args:
        backbone: Any model that `find_heads` knows.
        num_classes: Outputs, >= 2.
    dropout: Dropout on the input of the main heads; it replaces dropout directly before them. None keeps the
        architecture's own.
    """
    for name in find_heads(backbone):
        parent, _, last = name.rpartition(".")
        old = backbone.get_submodule(name)
        rate = None if name in _AUXILIARY else dropout
        if rate is not None:
            _silence_dropout_before(backbone, parent, last)
        setattr(backbone.get_submodule(parent), last, _make_layer(old, num_classes, rate))
    if hasattr(backbone, "num_classes"):
        backbone.num_classes = num_classes  # type: ignore[assignment]


def _make_layer(old: nn.Module, num_classes: int, dropout: float | None) -> nn.Module:
    """Return a layer with the inputs of `old` and `num_classes` outputs, on its device."""
    has_bias, device = old.bias is not None, old.weight.device
    if isinstance(old, nn.Linear):
        linear = _DroppingLinear if dropout else nn.Linear
        new: nn.Module = linear(old.in_features, num_classes, has_bias, device=device)
    else:
        assert isinstance(old, nn.Conv2d)
        convolution = _DroppingConv2d if dropout else nn.Conv2d
        shape: Any = {name: getattr(old, name) for name in ("kernel_size", "stride", "padding", "dilation", "groups")}
        new = convolution(old.in_channels, num_classes, **shape, bias=has_bias, device=device)
    if isinstance(new, _DroppingLinear | _DroppingConv2d):
        new.dropout = dropout or 0.0
    for name, parameter in new.named_parameters():
        if not parameter.is_meta:
            _draw_like(parameter, old.get_parameter(name))
    return new


@torch.no_grad()
def _draw_like(new: Tensor, old: Tensor) -> None:
    """Draw from a normal distribution with the mean and standard deviation of the library's initial weights."""
    # The library initialises for 1,000 outputs; for 2, some rules (1/sqrt(outputs)) give logits above 20.
    new.normal_().mul_(old.std(correction=0)).add_(old.mean())


def _silence_dropout_before(backbone: nn.Module, parent: str, last: str) -> None:
    """Set the dropout that directly feeds the head to 0, so that only the recipe's dropout applies."""
    container = backbone.get_submodule(parent)
    before: nn.Module | None = None
    if isinstance(container, nn.Sequential):
        names = list(container._modules)
        position = names.index(last)
        before = container._modules[names[position - 1]] if position else None
    else:  # inception_v3, googlenet; and timm's heads, where dropout is beside the layer
        beside = (getattr(container, name, None) for name in ("dropout", "drop", "head_drop"))
        before = next((module for module in beside if isinstance(module, nn.Dropout)), None)
    if isinstance(before, nn.Dropout):
        before.p = 0.0
