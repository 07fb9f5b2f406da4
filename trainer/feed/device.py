"""Copy batches to the accelerator, one ahead of the step that computes them, and finish their decoding there."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch

from trainer.feed.encoded import decode_into
from trainer.feed.feed import Batch
from trainer.feed.meter import Meter


def feed_device(batches: Iterator[Batch], device: torch.device, meter: Meter) -> Iterator[Batch]:
    """Yield complete batches with their tensors on `device`; on CUDA the next batch is prepared during a step.

    Raises:
        ShardError: A picture cannot be decoded on the device.
    """
    return _copy_ahead(batches, device, meter) if device.type == "cuda" else _decode_here(batches, meter)


def _decode_here(batches: Iterator[Batch], meter: Meter) -> Iterator[Batch]:
    for batch in batches:
        decode_into(batch.images, batch.encoded, meter)
        yield replace(batch, encoded={}) if batch.encoded else batch


def _copy_ahead(batches: Iterator[Batch], device: torch.device, meter: Meter) -> Iterator[Batch]:
    side = torch.cuda.Stream(device)

    def copy_next() -> Batch | None:
        batch = next(batches, None)
        if batch is None:
            return None
        with torch.cuda.stream(side):
            images = batch.images.to(device, non_blocking=True)
            decode_into(images, batch.encoded, meter)
            moved = replace(
                batch,
                images=images,
                labels=batch.labels.to(device, non_blocking=True),
                pairs=batch.pairs.to(device, non_blocking=True) if batch.pairs else None,
                known_weight=batch.total_weight,
                encoded={},
            )
        side.synchronize()  # the feed may reuse the batch's memory once the next one is requested
        return moved

    # A separate thread waits for feed and copy while the step's thread waits for the device.
    with ThreadPoolExecutor(1, "to-device") as mover:
        coming = mover.submit(copy_next)
        while (batch := coming.result()) is not None:
            coming = mover.submit(copy_next)
            # The allocator must not reuse the memory for the side stream's next copy while the step still reads it.
            for tensor in (batch.images, batch.labels, *(batch.pairs.tensors if batch.pairs else ())):
                tensor.record_stream(torch.cuda.current_stream(device))
            yield batch
