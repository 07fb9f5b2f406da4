"""LAMB as its paper has it."""

from __future__ import annotations

from timm.optim import Lamb
from torch.optim import Optimizer

from trainer.step.groups import Group


def build_lamb(groups: list[Group], lr: float, betas: tuple[float, float], eps: float) -> Optimizer:
    """Return timm's; a group with `always_adapt` has a trust ratio without decay, too, where Adam would be left."""
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
