"""Answers as a stream: threads read and decode ahead of the model, and hold a bounded number of pictures."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, TypeVar

import torch
from torch import Tensor

from shards.errors import ShardError
from trainer.contract.bundle import Bundle
from trainer.predict.asked import Asked, Place
from trainer.predict.parts import Part, Picture

Item = TypeVar("Item")
_Pending = tuple[Picture, Future[Tensor | str]]

AHEAD = 2
"""Batches that threads prepare while the model computes one."""


@dataclass(frozen=True)
class Row:
    """One picture's answer for people and JSON, or why it cannot be read."""

    path: str
    answer: dict[str, Any] | None
    unreadable: str | None = None


@dataclass(frozen=True)
class Speed:
    """Threads that read and decode, and pictures in a forward pass."""

    workers: int
    batch_size: int


def answer_stream(bundle: Bundle, asked: Asked, places: Iterable[Place], speed: Speed) -> Iterator[list[Row]]:
    """Yield rows a batch at a time, in the order of the places.

    Labels do not depend on `speed`; logits do within the tolerance of the probes, because a batch of another size may
    round differently. Which pictures are computed together is decided by their places alone.

    Raises:
        OSError: A store that cannot be reached.
        ShardError: An archive that breaks off.
    """
    with ThreadPoolExecutor(speed.workers, "answer", initializer=torch.set_num_threads, initargs=(1,)) as pool:
        ahead: deque[list[_Pending]] = deque()
        try:
            # Small batches: enough of them that every thread has a picture.
            most = max(AHEAD, -(-speed.workers // speed.batch_size))
            for batch in cut_batches(_submit(pool, bundle, asked, places), speed.batch_size):
                ahead.append(batch)
                if len(ahead) > most:
                    yield compute_rows(bundle, _finish(ahead.popleft()))
            while ahead:
                yield compute_rows(bundle, _finish(ahead.popleft()))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def cut_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield items in lists of `size`, the last of which may be shorter.

    >>> list(cut_batches("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch


def _finish(batch: list[_Pending]) -> list[tuple[Picture, Tensor | str]]:
    return [(picture, future.result()) for picture, future in batch]


def _submit(pool: ThreadPoolExecutor, bundle: Bundle, asked: Asked, places: Iterable[Place]) -> Iterator[_Pending]:
    for number, run in groupby(places, lambda place: place.part):
        part = asked.parts[number]
        pictures = (place.picture for place in run)
        if part.random_access:
            for picture in pictures:
                yield picture, pool.submit(read_picture, bundle, part, picture)
        else:
            for picture, data in part.read_in_order(pictures):
                yield picture, pool.submit(prepare_picture, bundle, data)


def read_picture(bundle: Bundle, part: Part, picture: Picture) -> Tensor | str:
    """Return uint8[C, S, S], or why the picture cannot be read; raises OSError where none of its part can be."""
    try:
        return bundle.prepare(part.read(picture.key))
    except ShardError as err:
        return str(err)


def prepare_picture(bundle: Bundle, data: bytes) -> Tensor | str:
    """Return uint8[C, S, S], or why the picture cannot be read."""
    try:
        return bundle.prepare(data)
    except ShardError as err:
        return str(err)


def compute_rows(bundle: Bundle, prepared: Iterable[tuple[Picture, Tensor | str]]) -> list[Row]:
    """Return a row for each picture; those that can be read are computed together."""
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
