"""Optimizers by name, over groups of parameters that are decayed, scaled and moved alike."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from trainer.contract.model.model import Classifier
from trainer.recipes.options.optim import OptimOptions
from trainer.step.freeze import is_below
from trainer.step.layers import measure_depths
from trainer.step.ranger import Ranger

Group = dict[str, Any]

_UNDECAYED = ("class_token", "pos_embedding", "relative_position_bias_table", "logit_scale", "layer_scale")
"""Last names of torchvision's parameters that are biases or scales although they have several dimensions."""


def build_optimizer(model: Classifier, options: OptimOptions, head: str, late: Collection[str] = ()) -> Optimizer:
    """Return the optimizer over what is not frozen, and over `late`.

    Each group has `lr_scale`, its share of the learning rate: before a step the caller sets
    group["lr"] = peak_lr * share_of_the_schedule * group["lr_scale"].

    Args:
        model: On the device where it is trained.
        options: Of the recipe.
        head: Name in the backbone of the module that maps features to classes.
        late: Names in the backbone of parameters that are frozen for now and released later. They are in from the
            start, in groups of their own; without gradient they have no state and do not move.
    """
    return _make(group_parameters(model, options, head, late), options)


def measure_state(optimizer: Optimizer, options: OptimOptions) -> int:
    """Return the bytes of the optimizer's state after a step that moves all of its parameters; none is taken.

    An optimizer of the same kind takes a step for one parameter of each shape.
    """
    total = 0
    known: dict[tuple[int, torch.Size, torch.dtype], int] = {}
    for number, group in enumerate(optimizer.param_groups):
        for parameter in group["params"]:
            key = (number, parameter.shape, parameter.dtype)
            if key not in known:
                known[key] = _measure_one({**group, "params": [nn.Parameter(torch.zeros_like(parameter))]}, options)
            total += known[key]
    return total


def _measure_one(group: Group, options: OptimOptions) -> int:
    (parameter,) = group["params"]
    parameter.grad = torch.zeros_like(parameter)
    optimizer = _make([group], options)
    optimizer.step()
    return sum(value.nbytes for value in optimizer.state[parameter].values() if isinstance(value, torch.Tensor))


def _make(groups: list[Group], options: OptimOptions) -> Optimizer:
    lr, betas, eps = options.peak_lr, options.betas or (0.9, 0.999), options.eps or 1e-8
    momentum = options.momentum or 0.0
    match options.name:
        case "sgd":
            return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)
        case "adam":
            return torch.optim.Adam(groups, lr=lr, betas=betas, eps=eps)
        case "adamw":
            return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps)
        case "radam":
            return torch.optim.RAdam(groups, lr=lr, betas=betas, eps=eps, decoupled_weight_decay=True)
        case "ranger":
            assert options.lookahead_steps is not None  # OptimOptions fills both in
            assert options.lookahead_share is not None
            return Ranger(groups, lr, betas, eps, options.lookahead_steps, options.lookahead_share)
        case "adabelief":
            from timm.optim import AdaBelief  # here and below: the others need not wait for timm

            belief: Optimizer = AdaBelief(groups, lr=lr, betas=betas, eps=eps)
            return belief
        case "lamb":
            return _build_lamb(groups, lr, betas, eps)
        case "lion":
            from timm.optim import Lion

            lion: Optimizer = Lion(groups, lr=lr, betas=betas)
            return lion
        case "muon":
            return _build_muon(groups, lr, betas, momentum)


def group_parameters(model: Classifier, options: OptimOptions, head: str, late: Collection[str] = ()) -> list[Group]:
    """Return groups of parameters in the model's order, each with its weight decay and `lr_scale`."""
    backbone, released = model.backbone, set(late)
    depths = measure_depths(backbone, head) if options.layer_decay < 1 else {}
    spared = _list_undecayed(backbone)
    groups: dict[tuple[object, ...], Group] = {}
    for name, parameter in backbone.named_parameters():
        if not (parameter.requires_grad or name in released):
            continue
        is_wide = parameter.ndim > 1
        traits = {
            "weight_decay": options.weight_decay if is_wide and name not in spared else 0.0,
            "lr_scale": options.layer_decay ** depths.get(name, 0),
            **_set_apart(options, is_wide, is_wide and min(parameter.shape[:2]) > 1 and not is_below(name, head)),
        }
        key = (name in released, *traits.items())
        groups.setdefault(key, {"params": [], **traits})["params"].append(parameter)
    return list(groups.values())


def _list_undecayed(backbone: nn.Module) -> set[str]:
    """Return what is spared besides tensors of one dimension: tokens, embeddings and biases of positions, scales.

    timm's models name them; torchvision's do not.
    """
    name_them: Any = getattr(backbone, "no_weight_decay", None)
    if name_them is not None:
        return set(name_them())
    return {name for name, _ in backbone.named_parameters() if name.rpartition(".")[2] in _UNDECAYED}


def _set_apart(options: OptimOptions, is_wide: bool, is_hidden: bool) -> Group:
    """Return what an optimizer wants to know of a group: lamb, what has a trust ratio; muon, what it turns.

    is_hidden: A matrix or filter between input and head; depthwise filters, position embeddings and tokens are not.
    """
    if options.name == "lamb":
        return {"always_adapt": is_wide}  # without it, weight_decay=0 would make Adam of it
    if options.name == "muon" and is_hidden:
        return {"use_muon": True}
    if options.name == "muon":
        return {"use_muon": False, "nesterov": False, "eps": options.eps}
    return {}


def _build_muon(groups: list[Group], lr: float, betas: tuple[float, float], momentum: float) -> Optimizer:
    from timm.optim import Muon

    # torch's Muon takes matrices alone; timm's takes filters, too, and with these settings does the same to a matrix.
    muon: Optimizer = Muon(groups, lr=lr, betas=betas, momentum=momentum, nesterov=True, ns_coefficients="original")
    return muon


def _build_lamb(groups: list[Group], lr: float, betas: tuple[float, float], eps: float) -> Optimizer:
    from timm.optim import Lamb

    # The paper does not clip; timm's default does, as NVIDIA's does. Here it is optim.clip_norm that clips.
    lamb: Optimizer = Lamb(groups, lr=lr, betas=betas, eps=eps, max_grad_norm=None)
    lamb.register_step_post_hook(_restart_count)
    return lamb


def _restart_count(optimizer: Optimizer, args: object, kwargs: object) -> None:
    """Take back the step that timm's Lamb counts for groups that had no gradient: they have not begun."""
    del args, kwargs
    for group in optimizer.param_groups:
        if not any(parameter in optimizer.state for parameter in group["params"]):
            group.pop("step", None)
