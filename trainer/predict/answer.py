"""Predictions as a stream: pictures are read ahead of the model, with a bounded number in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.contract.bundle import Bundle
from trainer.unpacked.ahead import Speed, read_ahead
from trainer.unpacked.asked import Asked, Place
from trainer.unpacked.parts import Picture


@dataclass(frozen=True)
class Row:
    """The answer for one picture, or why it cannot be read."""

    path: str
    answer: dict[str, Any] | None
    unreadable: str | None = None


def answer_stream(bundle: Bundle, asked: Asked, places: Iterable[Place], speed: Speed) -> Iterator[list[Row]]:
    """Yield batches of rows, in the order of the places; raises like `read_ahead`.

    Labels do not depend on `speed`; logits may differ within the tolerance of the probes, because the batch size
    affects rounding.
    """
    for batch in read_ahead(bundle.prepare, asked, places, speed):
        yield compute_rows(bundle, batch)


def compute_rows(bundle: Bundle, prepared: Iterable[tuple[Picture, Tensor | str]]) -> list[Row]:
    """Return a row for each picture; readable ones are computed together."""
    prepared = list(prepared)
    images = [image for _, image in prepared if not isinstance(image, str)]
    outputs = iter(bundle.compute(torch.stack(images)) if images else ())
    rows = []
    for picture, image in prepared:
        if isinstance(image, str):
            rows.append(Row(picture.path, None, image))
            continue
        answer = bundle.answer(*next(outputs)).describe()
        del answer["logits"]
        rows.append(Row(picture.path, answer))
    return rows
