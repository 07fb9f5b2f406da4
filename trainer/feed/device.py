"""Batches on their way to the accelerator, one ahead of the step that computes them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch

from trainer.feed.feed import Batch


def feed_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield the batches with what a step computes on `device`; on CUDA the next is copied while one is computed."""
    return _copy_ahead(batches, device) if device.type == "cuda" else batches


def _copy_ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    side = torch.cuda.Stream(device)

    def copy_next() -> Batch | None:
        batch = next(batches, None)
        if batch is None:
            return None
        with torch.cuda.stream(side):
            moved = replace(
                batch,
                images=batch.images.to(device, non_blocking=True),
                labels=batch.labels.to(device, non_blocking=True),
                pairs=batch.pairs.to(device, non_blocking=True) if batch.pairs else None,
            )
        side.synchronize()  # the feed may write into the batch's memory as soon as the next one is asked for
        return moved

    # A thread of its own: it waits for feed and copy while the step's thread waits for the device.
    with ThreadPoolExecutor(1, "to-device") as mover:
        coming = mover.submit(copy_next)
        while (batch := coming.result()) is not None:
            coming = mover.submit(copy_next)
            # The allocator must not give the memory to the side stream's next copy while the step still reads it.
            for tensor in (batch.images, batch.labels, *(batch.pairs.tensors if batch.pairs else ())):
                tensor.record_stream(torch.cuda.current_stream(device))
            yield batch
