"""RAdam with lookahead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainer.step.groups import Group


class Ranger(torch.optim.RAdam):
    """RAdam with lookahead: every few steps, slow weights move towards the weights, which are reset to them.

    timm's Lookahead creates slow weights only after the first few steps and counts steps per group, so that a parameter
    unfrozen later would start in the middle of a cycle. Here both are stored in each parameter's state.

    Source: Zhang et al. 2019, Lookahead Optimizer, algorithm 1; Liu et al. 2020, RAdam.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate of the fast weights.
        betas: RAdam's.
        eps: RAdam's.
        steps: Steps between two updates of the slow weights.
        share: Share of the distance by which slow weights move towards the fast ones, in (0, 1].
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        steps: int,
        share: float,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, decoupled_weight_decay=True)
        self._steps = steps
        self._share = share

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step; parameters without gradients do not change."""
        moved = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        # RAdam creates its state in the first step, only if there is none yet.
        starts = {p: p.detach().clone() for p in moved if "slow" not in self.state.get(p, {})}
        super().step(closure)
        for parameter in moved:
            state: dict[str, Tensor] = self.state[parameter]
            slow = state.setdefault("slow", starts.get(parameter, parameter))
            if int(state["step"]) % self._steps == 0:
                slow.lerp_(parameter, self._share)
                parameter.copy_(slow)


def build_ranger(
    groups: list[Group], lr: float, betas: tuple[float, float], eps: float, lookahead_steps: int, lookahead_share: float
) -> Optimizer:
    return Ranger(groups, lr, betas, eps, lookahead_steps, lookahead_share)
