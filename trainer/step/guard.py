"""Find samples whose loss is not finite, and save their pictures."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from shards.files.disk import naming_disk
from shards.files.sizes import format_size
from trainer.feed.feed import Batch

_NAMED = 8


class Guard:
    """Watches the steps of one rank.

    A step is checked just before the next one begins; checking at once would make the host wait for the device.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self._folder = folder
        self._rank = rank
        self._watched: tuple[int, Batch, Tensor] | None = None

    def watch(self, step: int, batch: Batch, losses: Tensor) -> None:
        """Record a step: losses float32[n], one for each sample of the batch."""
        self._watched = (step, batch, losses)

    def forget(self) -> None:
        """Drop the recorded step without checking it."""
        self._watched = None

    def is_bad(self) -> bool:
        """Whether the recorded step has a loss that is not finite."""
        return self._watched is not None and not bool(self._watched[2].isfinite().all())

    def save(self) -> str:
        """Save the samples of that step whose loss is not finite; return a description of the step and samples.

        Empty if this rank has none.
        """
        if self._watched is None or not self.is_bad():
            return ""
        step, batch, losses = self._watched
        bad = (~losses.isfinite()).cpu()
        ids = [int(number) for number, is_bad in zip(batch.ids, bad.tolist(), strict=True) if is_bad]
        path = self._folder / f"step-{step:09d}-rank-{self._rank:04d}.safetensors"
        images = batch.images[: len(batch)].cpu()[bad].contiguous()
        with naming_disk(path, f"more than {format_size(images.nbytes)}"):
            self._folder.mkdir(parents=True, exist_ok=True)
            save_file({"images": images, "labels": batch.labels.cpu()[bad], "ids": torch.tensor(ids)}, path)
        named = ", ".join(map(str, ids[:_NAMED])) + (", ..." if len(ids) > _NAMED else "")
        return f"step {step}: the loss of {len(ids)} of {len(batch)} samples is not finite (ids {named}; {path})"
