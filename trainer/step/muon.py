"""Muon combined with AdamW."""

from __future__ import annotations

from timm.optim import Muon
from torch.optim import Optimizer

from trainer.step.groups import Group


def build_muon(groups: list[Group], lr: float, momentum: float, betas: tuple[float, float], eps: float) -> Optimizer:
    """Return timm's Muon, which orthogonalises groups with `use_muon` and uses AdamW, with `eps`, for the rest.

    torch's Muon supports only matrices; timm's also supports filters, and with these settings is equal for matrices.
    """
    for group in groups:
        if not group["use_muon"]:
            group |= {"nesterov": False, "eps": eps}
    return Muon(groups, lr=lr, betas=betas, momentum=momentum, nesterov=True, ns_coefficients="original")
