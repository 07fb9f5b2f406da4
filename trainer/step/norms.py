"""BatchNorms whose statistics are those of a rank alone: what that means for a run, and how to have those of all."""

from __future__ import annotations

import torch
from torch import nn

from shards.errors import UsageError
from trainer.contract.model.model import Classifier
from trainer.step.freeze import Norm


def find_own_norms(model: nn.Module) -> list[nn.Module]:
    """Return the BatchNorms whose statistics are those of a rank alone."""
    return [m for m in model.modules() if isinstance(m, Norm) and not isinstance(m, nn.SyncBatchNorm)]


def describe_local_norms(model: Classifier, num_ranks: int) -> str | None:
    """Return what must be said of BatchNorm, the one thing that depends on the number of ranks; None without it."""
    if num_ranks == 1 or not find_own_norms(model):
        return None
    return (
        f"{model.spec.name} has BatchNorm, whose statistics are those of each rank's slice: the weights depend on "
        f"num_ranks={num_ranks}. A model with GroupNorm does not; step.sync_batch_norm=true would not either, on CUDA"
    )


def sync_norms(model: nn.Module, device: torch.device) -> None:
    """Make the statistics of every BatchNorm those of all ranks.

    Raises:
        UsageError: Another device than CUDA.
    """
    if device.type != "cuda":
        raise UsageError(
            "step.sync_batch_norm needs CUDA, this rank computes on a CPU; leave it out, take a model with "
            "GroupNorm, or train on GPUs"
        )
    convert_norms(model)


def convert_norms(model: nn.Module) -> None:
    """Put a SyncBatchNorm in the place of every BatchNorm, with its tensors; what it computes in evaluation stays."""
    from timm.layers import convert_sync_batchnorm  # half a second that other runs need not wait for

    # Not torch's own, which drops the activation that timm's BatchNormAct2d holds.
    convert_sync_batchnorm(model)
