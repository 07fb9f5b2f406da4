"""Build optimizers over parameter groups by name, and measure their state."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn
from torch.optim import Optimizer

from shards.cli.table import load_builder
from trainer.contract.model.model import Classifier
from trainer.recipes.options.choice import select_taken
from trainer.recipes.options.optim import OPTIMIZERS, OptimOptions
from trainer.step.groups import Group, group_parameters


def build_optimizer(model: Classifier, options: OptimOptions, head: str, late: Collection[str] = ()) -> Optimizer:
    """Return the optimizer for unfrozen parameters and those in `late`.

    Each group has `lr_scale`, its share of the learning rate. Before a step the caller sets
    group["lr"] = peak_lr * share_of_the_schedule * group["lr_scale"].

    Args:
        model: The model, on its training device.
        options: The recipe's optimizer options.
        head: Name in the backbone of the module that maps features to classes.
        late: Names in the backbone of parameters that are frozen now and unfrozen later. They are included from the
            start, in separate groups; without gradients they have no state and do not change.
    """
    return _make(group_parameters(model, options, head, late), options)


def measure_state(optimizer: Optimizer, options: OptimOptions) -> int:
    """Return the bytes of the optimizer's state after a step on all of its parameters, without taking one.

    Instead, an optimizer of the same kind takes a step on one parameter of each shape.
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
    optimizer: Optimizer = load_builder(row.builder)(groups, options.peak_lr, **select_taken(options, row))
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
