"""BatchNorms whose statistics are those of a rank alone: what that means for a run, and how to have those of all.

A microbatch is what they see at once: one of the parts in which a rank computes its slice of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from shards.errors import UsageError
from trainer.contract.model.model import Classifier
from trainer.step.freeze import Norm
from trainer.step.memory import cut_parts


@dataclass(frozen=True)
class Microbatches:
    """How an ordinary step is cut. batch_size: pictures over all ranks; parts: microbatches of a rank."""

    batch_size: int
    num_ranks: int
    parts: int

    @property
    def sizes(self) -> tuple[int, int]:
        """Return the least and the most pictures of a microbatch; ranks without pictures do not count.

        >>> Microbatches(13, 2, 3).sizes, Microbatches(4, 1, 9).sizes
        ((2, 3), (1, 1))
        """
        slices = {self.batch_size // self.num_ranks or 1, -(-self.batch_size // self.num_ranks)}
        sizes = [part.stop - part.start for size in slices for part in cut_parts(size, self.parts)]
        return min(sizes), max(sizes)

    @property
    def least_for_norms(self) -> int:
        """Pictures of a microbatch from which on BatchNorm goes by them: 2, and a quarter of an ordinary one.

        The end of an epoch may be 2 pictures. Where their features are nearly the same, each BatchNorm multiplies their
        gradient by up to 1 / sqrt(eps), 316; one such step has made a ResNet-50's outputs infinite.
        """
        slice_size = -(-self.batch_size // self.num_ranks)
        return max(2, -(-slice_size // (4 * self.parts)))

    def __str__(self) -> str:
        """Return the numbers as they stand in brackets.

        >>> str(Microbatches(8, 2, 4)), str(Microbatches(8, 1, 9)), str(Microbatches(1, 1, 1))
        ('batches of 8 on 2 ranks, each in 4 microbatches', 'batches of 8, each in 8 microbatches', 'batches of 1')
        """
        ranks = f" on {self.num_ranks} ranks" if self.num_ranks > 1 else ""
        parts = min(self.parts, -(-self.batch_size // self.num_ranks))
        return f"batches of {self.batch_size:,}{ranks}{f', each in {parts} microbatches' if parts > 1 else ''}"


class NormModes:
    """Which of a model's norms learn of a microbatch, and which keep the statistics that they have.

    frozen: Those whose layers are frozen now. ever_frozen: Those that stay so to the end.
    """

    def __init__(self, model: Classifier, frozen: list[nn.Module], ever_frozen: bool) -> None:
        self._name = model.spec.name
        self._own = find_own_norms(model)
        self._learns = any(norm not in frozen for norm in self._own) if ever_frozen else bool(self._own)
        self.frozen = frozen

    def enter_training(self, model: nn.Module, size: int, cut: Microbatches) -> None:
        """Put all into training mode but norms that are frozen, or would see too few pictures: they keep theirs."""
        model.train()
        few = self._own if size < cut.least_for_norms else []
        for norm in (*self.frozen, *few):  # a frozen SyncBatchNorm is no norm of the rank's own
            norm.eval()

    def describe_single(self, cut: Microbatches) -> str | None:
        """Return what must be said where ordinary microbatches have a single picture; None where none have."""
        least, most = cut.sizes
        if least > 1 or not self._learns:
            return None
        if most > 1:
            return (
                f"some microbatches have one picture ({cut}): there every BatchNorm of {self._name} is computed by the "
                "statistics of the others, and learns none"
            )
        return (
            f"every microbatch has one picture ({cut}), so that every BatchNorm of {self._name} stays in evaluation "
            "and keeps the statistics that it began with"
        )

    def refuse_single(self, cut: Microbatches, most_samples: int, accumulate: int | str) -> None:
        """Refuse microbatches of one picture for a model whose statistics are of no pictures yet.

        Args:
            cut: The run's.
            most_samples: Of an epoch, more than which no batch has.
            accumulate: The recipe's option.

        Raises:
            UsageError: They have one each.
        """
        said = self.describe_single(cut)
        if said is None or cut.sizes[1] > 1:
            return
        remedies = []
        fewer, larger = cut.batch_size // (2 * cut.num_ranks), 2 * cut.num_ranks * cut.parts
        if accumulate == cut.parts and fewer:
            remedies.append(f"set step.accumulate={fewer}")
        if accumulate == cut.parts and larger <= most_samples:
            remedies.append(f"set batch_size_global={larger}")
        remedies.append("take a model without BatchNorm, or weights= that have statistics")
        raise UsageError(f"{said}: with weights=none these are of no picture; {', '.join(remedies)}")


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
