"""Parameter groups with the same weight decay, learning rate scale and optimizer flags."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from trainer.contract.model.model import Classifier
from trainer.recipes.options.optim import OPTIMIZERS, OptimOptions
from trainer.step.freeze import is_below
from trainer.step.layers import measure_depths

Group = dict[str, Any]

_UNDECAYED = ("class_token", "pos_embedding", "relative_position_bias_table", "logit_scale", "layer_scale")
"""Name suffixes of torchvision's parameters that are biases or scales despite having several dimensions."""


def group_parameters(model: Classifier, options: OptimOptions, head: str, late: Collection[str] = ()) -> list[Group]:
    """Return groups in the model's order, each with its weight decay, its `lr_scale` and the optimizer's own flags.

    Matrices and filters between input and head are hidden; depthwise filters, position embeddings and tokens are not.
    """
    backbone, released = model.backbone, set(late)
    depths = measure_depths(backbone, head) if options.layer_decay < 1 else {}
    spared = _list_undecayed(backbone)
    flags = OPTIMIZERS[options.name].group_flags
    groups: dict[tuple[object, ...], Group] = {}
    for name, parameter in backbone.named_parameters():
        if not (parameter.requires_grad or name in released):
            continue
        is_wide = parameter.ndim > 1
        kinds = {"wide": is_wide, "hidden": is_wide and min(parameter.shape[:2]) > 1 and not is_below(name, head)}
        traits = {
            "weight_decay": options.weight_decay if is_wide and name not in spared else 0.0,
            "lr_scale": options.layer_decay ** depths.get(name, 0),
            **{flag: kinds[kind] for flag, kind in flags.items()},
        }
        key = (name in released, *traits.items())
        groups.setdefault(key, {"params": [], **traits})["params"].append(parameter)
    return list(groups.values())


def _list_undecayed(backbone: nn.Module) -> set[str]:
    """Return parameters without decay besides one-dimensional ones: tokens, position embeddings and biases, scales.

    timm's models list them; torchvision's do not.
    """
    name_them: Any = getattr(backbone, "no_weight_decay", None)
    if name_them is not None:
        return set(name_them())
    return {name for name, _ in backbone.named_parameters() if name.rpartition(".")[2] in _UNDECAYED}
