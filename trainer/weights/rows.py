"""Layers in a row: checkpoints of projects that put a model's children into one Sequential, under numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from shards.errors import ShardError

PLACES: Final = ("feature_extractor.", "feature_extractor.0.", "features.", "backbone.", "encoder.", "body.", "0.", "")
"""Where projects have the row: Lightning's tutorial the first, fastai `0.`, with its own head behind it in `1.`."""
HEADS: Final = ("classifier", "fc", "head", "linear")
"""What projects call the linear layer behind the row."""
_SIDE: Final = 64
"""Of the pictures on which a row is compared with its model, pixels."""


class Row(NamedTuple):
    """What a row of layers is in the model: names, and why its head has no place there, empty where it has."""

    names: dict[str, str]
    head: str = ""


def unroll(tensors: Mapping[str, Tensor], backbone: nn.Module, heads: list[str]) -> Row | None:
    """Return {source name: target name} of a checkpoint with the model's children in a row, None where it is none.

    Args:
        tensors: By the names of their source, prefixes of wrappers taken off.
        backbone: The model.
        heads: Its modules that map features to classes.

    Raises:
        ShardError: The model is more than its children in a row, so such a checkpoint is another network's.
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
    """Return the names below a place with the children's names for their numbers."""
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
            "the head is fastai's, of several layers behind average and maximum pooling, for which the model has no "
            "place: a run can start from the rest (weights=), and be bundled",
        )
    for name in HEADS:
        weight = tensors.get(f"{name}.weight")
        if weight is not None and weight.shape[1:] == own[f"{head}.weight"].shape[1:]:
            return Row(names | {f"{name}.{part}": f"{head}.{part}" for part in ("weight", "bias")})
    return Row(names)


@torch.inference_mode()
def _check_row(backbone: nn.Module, children: list[str], head: str) -> None:
    """Refuse a model that does not give the same as its children one after another.

    Raises:
        ShardError: It computes more between them, as densenets do.
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
            f"the weights are a model's layers in a row, under numbers, and {type(backbone).__name__} computes more "
            "between them; save the state dict of the model that the library makes"
        )
