"""Facts about models: size, cost and layers, computed without memory for weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any, Final

import timm
import torch
import torchvision.models
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from shards.errors import UsageError
from trainer.contract.model.backbone import build_backbone, build_without_memory, list_torchvision, one_line, own_size
from trainer.contract.model.names import ALIASES, TIMM_PREFIX
from trainer.weights.expected import read_own_expectation
from trainer.weights.published import list_tags

_UNCOUNTED: Final = ("aux1.", "aux2.")
"""Auxiliary heads of googlenet."""


@dataclass(frozen=True)
class ModelFacts:
    """One line of the list of models."""

    name: str
    parameters: int | None
    """With the head for 1,000 classes, as in torchvision's table; None: not computed."""
    gflops: float | None
    """1e9 multiply-adds per picture in evaluation, as in papers and torchvision's tables."""
    image_size: int
    """Side of the input that parameters and gflops are for, pixels."""
    weights: list[str]
    """Tags of published weights, the default first."""
    aliases: list[str]


@dataclass(frozen=True)
class Layer:
    """One module without children, or with parameters of its own; layers are listed in the order in which they finish.

    A layer that is called twice is listed twice, the second time without parameters, so that the sum is the model's.
    """

    name: str
    kind: str
    output: list[int]
    """Shape for one picture; empty for a layer that evaluation does not call as a module of its own."""
    parameters: int


@dataclass
class Summary:
    """A model's layers, with the preprocessing of its weights."""

    facts: ModelFacts
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    layers: list[Layer] = field(default_factory=list)


def is_model(name: str) -> bool:
    """Return whether this is the full name of a model."""
    if name.startswith(TIMM_PREFIX):
        return bool(timm.is_model(name.removeprefix(TIMM_PREFIX).partition(".")[0]))
    return name in list_torchvision()


def find_models(pattern: str) -> list[str]:
    """Return the names of torchvision's builders, then timm's models, that contain a text or match a pattern with * and
    ?.

    A matching alias gives the model it stands for.
    """
    names = [*list_torchvision(), *(TIMM_PREFIX + name for name in timm.list_models())]
    meant = {target.partition(".")[0] for alias, target in ALIASES.items() if _fits(alias, pattern)}
    return [name for name in names if _fits(name, pattern) or name in meant]


def _fits(name: str, pattern: str) -> bool:
    return fnmatch(name, pattern) if any(sign in pattern for sign in "*?[") else pattern in name


def list_facts(names: list[str], measured: bool) -> Iterator[ModelFacts]:
    """Yield the facts of each model; unpublished figures are computed if `measured`."""
    for name in names:
        parameters, gflops = _read_figures(name)
        if parameters is None and measured:
            parameters, gflops = measure(name, own_size(name))
        yield _describe(name, parameters, gflops, own_size(name))


def _describe(name: str, parameters: int | None, gflops: float | None, size: int) -> ModelFacts:
    aliases = [alias for alias, target in ALIASES.items() if target.partition(".")[0] == name.partition(".")[0]]
    return ModelFacts(name, parameters, gflops, size, list_tags(name), aliases)


def _read_figures(name: str) -> tuple[int | None, float | None]:
    """Return the parameters and GFLOPs that torchvision publishes for its default weights."""
    if name.startswith(TIMM_PREFIX):
        return None, None
    meta = torchvision.models.get_model_weights(name).DEFAULT.meta
    return int(meta["num_params"]), float(meta["_ops"])


def measure(name: str, size: int, num_classes: int | None = None, in_channels: int = 3) -> tuple[int, float]:
    """Return parameters and GFLOPs (1e9 multiply-adds) of a model for pictures of `size` pixels.

    Raises:
        UsageError: The model is unknown, or does not take that size.
    """
    backbone = build_on_meta(name, size, num_classes, in_channels)
    return count_parameters(backbone), _count_gflops(name, backbone, size, in_channels)


def _count_gflops(name: str, backbone: nn.Module, size: int, in_channels: int) -> float:
    """Return 1e9 multiply-adds per picture; raises UsageError if the model does not take the size."""
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            backbone(torch.empty((1, in_channels, size, size), device="meta"))
    except (AssertionError, RuntimeError, TypeError, ValueError) as err:
        raise UsageError(
            f"{name} does not take pictures of {size} pixels and {in_channels} channels ({one_line(err)}); "
            f"its own are {own_size(name)} pixels and 3 channels"
        ) from err
    return counter.get_total_flops() / 2e9


def build_on_meta(name: str, size: int, num_classes: int | None = None, in_channels: int = 3) -> nn.Module:
    """Return a model in evaluation mode on the meta device, without memory for weights."""
    backbone = build_without_memory(lambda: build_backbone(name, num_classes, in_channels, size)).eval()
    # The FLOP counter fails on a parameter that is a module's input (class tokens) and requires gradients.
    return backbone.requires_grad_(False)


def count_parameters(backbone: nn.Module) -> int:
    """Return the number of parameters as torchvision does: with inception's auxiliary head, without googlenet's."""
    named = backbone.named_parameters()
    return sum(parameter.numel() for name, parameter in named if not name.startswith(_UNCOUNTED))


def summarise(name: str, size: int | None, num_classes: int | None, in_channels: int) -> Summary:
    """Return a model layer by layer.

    Args:
        name: The library's name of the model.
        size: Side of the input, pixels; None: the model's own.
        num_classes: Outputs of the head; None: the library's 1,000.
        in_channels: 1 or 3.
    """
    size = size or own_size(name)
    backbone = build_on_meta(name, size, num_classes, in_channels)
    layers: list[Layer] = []
    counted: set[str] = set()
    shown = {
        title: module
        for title, module in backbone.named_modules()
        if not list(module.children()) or list(module.parameters(recurse=False))
    }
    for title, module in shown.items():
        module.register_forward_hook(_Recorder(title, layers, counted))
    gflops = _count_gflops(name, backbone, size, in_channels)
    _add_uncalled(layers, shown)
    facts = _describe(name, count_parameters(backbone), gflops, size)
    expects = read_own_expectation(name)
    return Summary(facts, expects.mean, expects.std, expects.interpolation, layers)


def _count_own(module: nn.Module, title: str) -> int:
    """Return the number of a module's own parameters that `count_parameters` counts."""
    return 0 if title.startswith(_UNCOUNTED) else sum(item.numel() for item in module.parameters(recurse=False))


def _add_uncalled(layers: list[Layer], shown: dict[str, nn.Module]) -> None:
    """Insert modules whose parameters evaluation does not use, or uses without calling the module, in module order."""
    places = {layer.name: place for place, layer in reversed(list(enumerate(layers)))}
    place = len(layers)
    for title, module in reversed(shown.items()):
        place = places.get(title, place)
        if title not in places and (number := _count_own(module, title)):
            layers.insert(place, Layer(title, type(module).__name__, [], number))


@dataclass
class _Recorder:
    """Record a module's output shape, and its parameters at the first call."""

    name: str
    layers: list[Layer]
    counted: set[str]

    def __call__(self, module: nn.Module, _inputs: Any, output: Any) -> None:
        given = output if isinstance(output, Tensor) else _find_tensor(output)  # attention and LSTM give tuples
        numbers = 0 if self.name in self.counted else _count_own(module, self.name)
        self.counted.add(self.name)
        if given is not None or numbers:
            shape = [] if given is None else list(given.shape)
            self.layers.append(Layer(self.name, type(module).__name__, shape, numbers))


def _find_tensor(output: Any) -> Tensor | None:
    """Return the first tensor in a module's output."""
    parts = output.values() if isinstance(output, dict) else output if isinstance(output, list | tuple) else ()
    return next((part for part in parts if isinstance(part, Tensor)), None)
