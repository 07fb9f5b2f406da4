"""LAMB as in its paper."""

from __future__ import annotations

from timm.optim import Lamb
from torch.optim import Optimizer

from trainer.step.groups import Group


def build_lamb(groups: list[Group], lr: float, betas: tuple[float, float], eps: float) -> Optimizer:
    """Return timm's LAMB; groups with `always_adapt` have a trust ratio even without decay, not plain Adam."""
    # Unlike timm's and NVIDIA's default, the paper does not clip. Here optim.clip_norm clips.
    lamb: Optimizer = Lamb(groups, lr=lr, betas=betas, eps=eps, max_grad_norm=None)
    lamb.register_step_post_hook(_restart_count)
    return lamb


def _restart_count(optimizer: Optimizer, args: object, kwargs: object) -> None:
    """Reset the step that timm's Lamb counts for groups without gradients, because they have not started."""
    del args, kwargs
    for group in optimizer.param_groups:
        if not any(parameter in optimizer.state for parameter in group["params"]):
            group.pop("step", None)
