"""Pictures that stay encoded in a batch until it is on its device, and their decoding there.

nvJPEG decodes on CUDA and libjpeg-turbo on a CPU, through one torchvision function. It is deprecated since
torchvision 0.29 in favour of torchcodec, whose decode_jpeg takes the same arguments.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.io import decode_jpeg

from shards.dataset.read import Sample, name_broken
from shards.errors import DecodeError
from trainer.feed.meter import Meter

logger = logging.getLogger(__name__)

_PIXELS_AT_ONCE = 64 << 20
"""Limit of pixels decoded together, 192 MiB of RGB: a whole batch of camera photographs could fill a GPU."""


@dataclass(frozen=True)
class Encoded:
    """A JPEG to decode on the device of its batch.

    sides: Height and width, pixels. finish: Converts the decoded picture, uint8[1 or 3, H, W] on any device, to
    uint8[C, S, S]. load: Does both on the CPU, for JPEGs that the device's decoder rejects.
    """

    sample: Sample
    sides: tuple[int, int]
    finish: Callable[[Tensor], Tensor]
    load: Callable[[], Tensor]

    @property
    def pixels(self) -> int:
        return self.sides[0] * self.sides[1]


def decode_into(images: Tensor, encoded: Mapping[int, Encoded], meter: Meter) -> None:
    """Decode pictures into their rows of a batch uint8[n, C, S, S], on the batch's device.

    Raises:
        ShardError: Neither the device's decoder nor the CPU's can decode a picture; the message has its shard and key.
    """
    for rows in _share_out(encoded):
        with meter.timing("device"):
            pictures = [encoded[row] for row in rows]
            for row, picture, decoded in zip(rows, pictures, _decode(pictures, images.device), strict=True):
                images[row].copy_(_load(picture) if decoded is None else picture.finish(decoded))


def _share_out(encoded: Mapping[int, Encoded]) -> Iterator[list[int]]:
    """Yield groups of rows to decode together."""
    rows: list[int] = []
    pixels = 0
    for row, picture in encoded.items():
        if rows and pixels + picture.pixels > _PIXELS_AT_ONCE:
            yield rows
            rows, pixels = [], 0
        rows.append(row)
        pixels += picture.pixels
    if rows:
        yield rows


def _decode(pictures: list[Encoded], device: torch.device) -> list[Tensor | None]:
    """Return uint8[1 or 3, H, W] for each picture; None if the device's decoder rejects it."""
    data = [torch.frombuffer(bytearray(picture.sample.data), dtype=torch.uint8) for picture in pictures]
    if device.type == "cuda":
        # nvJPEG writes on its own stream, into memory that queued work may still read.
        torch.cuda.current_stream(device).synchronize()
    try:
        return list(decode_jpeg(data, device=device))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as err:  # one of them failed, and none is returned
        if len(pictures) > 1:
            half = len(pictures) // 2
            return [*_decode(pictures[:half], device), *_decode(pictures[half:], device)]
        logger.warning("%s is decoded on the CPU instead: %s", pictures[0].sample.where, str(err).partition("\n")[0])
        return [None]


def _load(picture: Encoded) -> Tensor:
    try:
        return picture.load()
    except DecodeError as err:
        raise name_broken(picture.sample, err) from err
