"""Muon beside AdamW."""

from __future__ import annotations

from timm.optim import Muon
from torch.optim import Optimizer

from trainer.step.groups import Group


def build_muon(groups: list[Group], lr: float, momentum: float, betas: tuple[float, float], eps: float) -> Optimizer:
    """Return timm's, which turns the groups with `use_muon` and leaves the rest to AdamW, with its `eps`.

    torch's Muon takes matrices alone; timm's takes filters, too, and with these settings does the same to a matrix.
    """
    for group in groups:
        if not group["use_muon"]:
            group |= {"nesterov": False, "eps": eps}
    return Muon(groups, lr=lr, betas=betas, momentum=momentum, nesterov=True, ns_coefficients="original")
