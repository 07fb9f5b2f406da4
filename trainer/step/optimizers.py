"""Optimizers over groups of parameters: by name, what their state takes, and the builders of most."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn
from torch.optim import Optimizer

from shards.cli.table import load_builder
from trainer.contract.model.model import Classifier
from trainer.recipes.options.choice import select_used
from trainer.recipes.options.optim import OPTIMIZERS, OptimOptions
from trainer.step.groups import Group, group_parameters


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
    row = OPTIMIZERS[options.name]
    optimizer: Optimizer = load_builder(row.builder)(groups, options.peak_lr, **select_used(options, row))
    return optimizer


# builders

Betas = tuple[float, float]


def build_sgd(groups: list[Group], lr: float, momentum: float) -> Optimizer:
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)


def build_adam(groups: list[Group], lr: float, betas: Betas, eps: float) -> Optimizer:
    return torch.optim.Adam(groups, lr=lr, betas=betas, eps=eps)


def build_adamw(groups: list[Group], lr: float, betas: Betas, eps: float) -> Optimizer:
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps)


def build_radam(groups: list[Group], lr: float, betas: Betas, eps: float) -> Optimizer:
    return torch.optim.RAdam(groups, lr=lr, betas=betas, eps=eps, decoupled_weight_decay=True)


def build_adabelief(groups: list[Group], lr: float, betas: Betas, eps: float) -> Optimizer:
    from timm.optim import AdaBelief  # here and below: the others need not wait for timm

    return AdaBelief(groups, lr=lr, betas=betas, eps=eps)


def build_lion(groups: list[Group], lr: float, betas: Betas) -> Optimizer:
    from timm.optim import Lion

    return Lion(groups, lr=lr, betas=betas)
