"""The distance of each parameter of a backbone from the head, in layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from trainer.step.freeze import is_below


def measure_depths(backbone: nn.Module, head: str) -> dict[str, int]:
    """Return how many layers below the head each parameter (by name) lies; those of the head itself have 0.

    Layers are those of timm if it names them (`group_matcher`); in some models timm counts the norm before the head as
    part of the head. Otherwise layers are modules in order, where each block of a sequence (torchvision's layer1.0,
    encoder_layer_3, denselayer4) is one layer. A norm belongs to the layer before it, and parameters outside these
    modules (tokens, position embeddings) to the first.

    head: Name of the module that maps features to classes.
    """
    ranks = _rank_by_timm(backbone) if hasattr(backbone, "group_matcher") else _rank_by_order(backbone)
    top = ranks[f"{head}.weight"]
    return {name: max(0, top - rank) for name, rank in ranks.items()}


def _rank_by_timm(backbone: nn.Module) -> dict[str, int]:
    from timm.models import group_parameters  # here alone: models of torchvision need not wait for it

    matcher: Any = backbone.group_matcher
    ranks: dict[str, int] = group_parameters(backbone, matcher(coarse=False), reverse=True)
    return ranks


def _rank_by_order(backbone: nn.Module) -> dict[str, int]:
    layers = list(_list_layers(backbone, "", sum(parameter.numel() for parameter in backbone.parameters()) / 2))
    homes = {
        name: next((layer for layer in layers if is_below(name, layer)), "") for name, _ in backbone.named_parameters()
    }
    wide = {homes[name] for name, parameter in backbone.named_parameters() if parameter.ndim > 1} - {""}
    rank, begun = 0, False
    ranks: dict[str, int] = {}
    for home in homes.values():
        if home in wide and home not in ranks:
            rank, begun = rank + begun, True
        ranks.setdefault(home, rank)
    return {name: ranks[home] for name, home in homes.items()}


def _list_layers(module: nn.Module, name: str, most: float) -> Iterator[str]:
    """Yield the names of the layers below a module; descend into sequences and into most of the backbone."""
    for child_name, child in module.named_children():
        full = f"{name}.{child_name}" if name else child_name
        if _is_sequence(child) or (any(child.children()) and sum(p.numel() for p in child.parameters()) > most):
            yield from _list_layers(child, full, most)
        else:
            yield full


def _is_sequence(module: nn.Module) -> bool:
    """Return whether a module is a sequence of layers, unlike torchvision's Sequentials of convolution and norm."""
    if type(module) is nn.Sequential:
        return True
    is_row = isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)
    return is_row and any(any(child.children()) for child in module.children())
