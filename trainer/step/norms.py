"""BatchNorm with statistics of one rank: its effect on a run, and how to synchronise the statistics.

BatchNorm normalises by microbatch, a slice of a rank's batch that is computed at once.
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
    """How an ordinary step is split. batch_size: pictures over all ranks; parts: microbatches per rank."""

    batch_size: int
    num_ranks: int
    parts: int

    @property
    def sizes(self) -> tuple[int, int]:
        """Return the smallest and largest number of pictures in a microbatch, ignoring ranks without pictures.

        >>> Microbatches(13, 2, 3).sizes, Microbatches(4, 1, 9).sizes
        ((2, 3), (1, 1))
        """
        slices = {self.batch_size // self.num_ranks or 1, -(-self.batch_size // self.num_ranks)}
        sizes = [part.stop - part.start for size in slices for part in cut_parts(size, self.parts)]
        return min(sizes), max(sizes)

    @property
    def least_for_norms(self) -> int:
        """Smallest microbatch that BatchNorm normalises by: 2 pictures, and a quarter of an ordinary microbatch.

        The end of an epoch may be 2 pictures. If their features are nearly equal, each BatchNorm multiplies their
        gradient by up to 1 / sqrt(eps), 316; one such step made a ResNet-50's outputs infinite.
        """
        slice_size = -(-self.batch_size // self.num_ranks)
        return max(2, -(-slice_size // (4 * self.parts)))

    def __str__(self) -> str:
        """Return a description for messages.

        >>> str(Microbatches(8, 2, 4)), str(Microbatches(8, 1, 9)), str(Microbatches(1, 1, 1))
        ('batches of 8 on 2 ranks, each in 4 microbatches', 'batches of 8, each in 8 microbatches', 'batches of 1')
        """
        ranks = f" on {self.num_ranks} ranks" if self.num_ranks > 1 else ""
        parts = min(self.parts, -(-self.batch_size // self.num_ranks))
        return f"batches of {self.batch_size:,}{ranks}{f', each in {parts} microbatches' if parts > 1 else ''}"


class NormModes:
    """Selects the norms that update their statistics in a microbatch, and those that keep them.

    frozen: Norms of layers frozen now. ever_frozen: Norms that stay frozen to the end.
    """

    def __init__(self, model: Classifier, frozen: list[nn.Module], ever_frozen: bool) -> None:
        self._name = model.spec.name
        self._own = find_own_norms(model)
        self._learns = any(norm not in frozen for norm in self._own) if ever_frozen else bool(self._own)
        self.frozen = frozen

    def enter_training(self, model: nn.Module, size: int, cut: Microbatches) -> None:
        """Set training mode, except for norms that are frozen or would see too few pictures."""
        model.train()
        few = self._own if size < cut.least_for_norms else []
        for norm in (*self.frozen, *few):  # a frozen SyncBatchNorm is not in `few`
            norm.eval()

    def describe_single(self, cut: Microbatches) -> str | None:
        """Return the warning if ordinary microbatches have a single picture; else None."""
        least, most = cut.sizes
        if least > 1 or not self._learns:
            return None
        if most > 1:
            return (
                f"some microbatches have one picture ({cut}): there every BatchNorm of {self._name} uses the stored "
                "statistics and does not update them"
            )
        return (
            f"every microbatch has one picture ({cut}), so every BatchNorm of {self._name} stays in evaluation mode "
            "and keeps its initial statistics"
        )

    def refuse_single(self, cut: Microbatches, most_samples: int, accumulate: int | str) -> None:
        """Raise for microbatches of one picture if the model's statistics are still untrained.

        Args:
            cut: How the run's steps are split.
            most_samples: Samples of an epoch, the upper limit of a batch.
            accumulate: The recipe's option.

        Raises:
            UsageError: Microbatches have one picture.
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
        remedies.append("use a model without BatchNorm, or weights= with statistics")
        raise UsageError(f"{said}: with weights=none these are untrained; {', '.join(remedies)}")


def find_own_norms(model: nn.Module) -> list[nn.Module]:
    """Return the BatchNorm layers that are not synchronised over ranks."""
    return [m for m in model.modules() if isinstance(m, Norm) and not isinstance(m, nn.SyncBatchNorm)]


def describe_local_norms(model: Classifier, num_ranks: int) -> str | None:
    """Return the warning that BatchNorm makes results depend on the number of ranks; None without BatchNorm."""
    if num_ranks == 1 or not find_own_norms(model):
        return None
    return (
        f"{model.spec.name} has BatchNorm with statistics of each rank's slice, so the weights depend on "
        f"num_ranks={num_ranks}. To avoid it, use a model with GroupNorm, or step.sync_batch_norm=true on CUDA"
    )


def sync_norms(model: nn.Module, device: torch.device) -> None:
    """Synchronise the statistics of every BatchNorm over all ranks.

    Raises:
        UsageError: The device is not CUDA.
    """
    if device.type != "cuda":
        raise UsageError(
            "step.sync_batch_norm needs CUDA, but this rank uses a CPU; leave it out, use a model with "
            "GroupNorm, or train on GPUs"
        )
    convert_norms(model)


def convert_norms(model: nn.Module) -> None:
    """Replace every BatchNorm by a SyncBatchNorm with the same tensors; evaluation results do not change."""
    from timm.layers import convert_sync_batchnorm  # half a second that other runs need not wait for

    # Not with torch's function, which drops the activation inside timm's BatchNormAct2d.
    convert_sync_batchnorm(model)
