"""Checkpoints of projects that put a model's children into one Sequential, so that names are numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from shards.errors import ShardError

PLACES: Final = ("feature_extractor.", "feature_extractor.0.", "features.", "backbone.", "encoder.", "body.", "0.", "")
"""Prefixes of the Sequential: the first in Lightning's tutorial, `0.` in fastai, with its head in `1.`."""
HEADS: Final = ("classifier", "fc", "head", "linear")
"""Names of the linear layer after the Sequential."""
_SIDE: Final = 64
"""Side of the pictures on which a Sequential is compared with its model, pixels."""


class Row(NamedTuple):
    """Names of a Sequential's layers in the model, and why its head does not fit; "" if it does."""

    names: dict[str, str]
    head: str = ""


def unroll(tensors: Mapping[str, Tensor], backbone: nn.Module, heads: list[str]) -> Row | None:
    """Return {source name: target name} for a Sequential of the model's children; None if it is not one.

    Args:
        tensors: Tensors by their source's names, without wrapper prefixes.
        backbone: The model.
        heads: Its modules that map features to classes.

    Raises:
        ShardError: The model is not a Sequential of its children, so the checkpoint is another network's.
    """
    own = backbone.state_dict()
    children = [name for name, _ in backbone.named_children()]
    for place in PLACES:
        names = _number(tensors, place, children)
        fitting = sum(each in own and tensors[name].shape == own[each].shape for name, each in names.items())
        if names and 2 * fitting >= len(own) and not set(names) <= set(own):
            _check_row(backbone, children, heads[0])
            return _find_head(tensors, names, heads[0], own)
    return None


def _number(names: Iterable[str], place: str, children: list[str]) -> dict[str, str]:
    """Return the names below a prefix with numbers replaced by the children's names."""
    numbered: dict[str, str] = {}
    for name in names:
        match = re.match(r"(\d+)\.", name[len(place) :]) if name.startswith(place) else None
        if match and int(match[1]) < len(children):
            numbered[name] = f"{children[int(match[1])]}.{name[len(place) + match.end() :]}"
    return numbered


def _find_head(tensors: Mapping[str, Tensor], names: dict[str, str], head: str, own: Mapping[str, Tensor]) -> Row:
    if any(re.match(r"1\.\d+\.running_mean$", name) for name in tensors):
        return Row(
            {name: each for name, each in names.items() if name.startswith("0.")},
            "the head is fastai's, several layers after average and maximum pooling, which the model lacks: "
            "a run can start from the other layers (weights=) and then be bundled",
        )
    for name in HEADS:
        weight = tensors.get(f"{name}.weight")
        if weight is not None and weight.shape[1:] == own[f"{head}.weight"].shape[1:]:
            return Row(names | {f"{name}.{part}": f"{head}.{part}" for part in ("weight", "bias")})
    return Row(names)


@torch.inference_mode()
def _check_row(backbone: nn.Module, children: list[str], head: str) -> None:
    """Raise if a model does not compute the same as its children in sequence.

    Raises:
        ShardError: The model computes more between them, as densenets do.
    """
    was_training = backbone.training
    backbone.eval()
    first = next(iter(backbone.parameters()))
    noise = torch.randn(2, first.shape[1], _SIDE, _SIDE, generator=torch.Generator().manual_seed(0)).to(first)
    last = backbone.get_submodule(children[-1])
    try:
        features = nn.Sequential(*list(backbone.children())[:-1])(noise)
        same = head.partition(".")[0] == children[-1] and torch.allclose(
            last(features.flatten(1)), backbone(noise), rtol=1e-3, atol=1e-4
        )
    except (RuntimeError, TypeError, AttributeError, NotImplementedError):
        same = False
    backbone.train(was_training)
    if not same:
        raise ShardError(
            f"the weights are a Sequential of a model's layers, but {type(backbone).__name__} computes more operations "
            "between them; save the state dict of the model that the library makes"
        )
