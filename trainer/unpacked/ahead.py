"""Batches of pictures: threads read and process them ahead of the consumer, holding a bounded number."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, TypeVar

import torch

from shards.errors import ShardError
from trainer.unpacked.asked import Asked, Place
from trainer.unpacked.parts import Part, Picture

Item = TypeVar("Item")
Made = TypeVar("Made")
Make = Callable[[bytes], Made]
"""Function that processes the bytes of a picture; a ShardError says why it cannot be read."""

AHEAD = 2
"""Number of batches that threads prepare while the model computes one."""


@dataclass(frozen=True)
class Speed:
    """Number of threads that read and decode, and pictures per forward pass."""

    workers: int
    batch_size: int


def read_ahead(
    make: Make[Made], asked: Asked, places: Iterable[Place], speed: Speed
) -> Iterator[list[tuple[Picture, Made | str]]]:
    """Yield batches of pictures in the order of the places, each with its result or the reason it is unreadable.

    The pictures of a batch depend on the places alone.

    Raises:
        OSError: A store cannot be reached.
        ShardError: An archive is truncated.
    """
    with ThreadPoolExecutor(speed.workers, "ahead", initializer=torch.set_num_threads, initargs=(1,)) as pool:
        ahead: deque[list[tuple[Picture, Future[Made | str]]]] = deque()
        try:
            # With small batches, prepare enough of them to give every thread a picture.
            most = max(AHEAD, -(-speed.workers // speed.batch_size))
            for batch in cut_batches(_submit(pool, make, asked, places), speed.batch_size):
                ahead.append(batch)
                if len(ahead) > most:
                    yield _finish(ahead.popleft())
            while ahead:
                yield _finish(ahead.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def cut_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield items in lists of `size`, the last list may be shorter.

    >>> list(cut_batches("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch


def _finish(batch: list[tuple[Picture, Future[Made | str]]]) -> list[tuple[Picture, Made | str]]:
    return [(picture, future.result()) for picture, future in batch]


def _submit(
    pool: ThreadPoolExecutor, make: Make[Made], asked: Asked, places: Iterable[Place]
) -> Iterator[tuple[Picture, Future[Made | str]]]:
    for number, run in groupby(places, lambda place: place.part):
        part = asked.parts[number]
        pictures = (place.picture for place in run)
        if part.random_access:
            for picture in pictures:
                yield picture, pool.submit(read_picture, make, part, picture)
        else:
            for picture, data in part.read_in_order(pictures):
                yield picture, pool.submit(_try, make, data)


def read_picture(make: Make[Made], part: Part, picture: Picture) -> Made | str:
    """Return the result for a picture, or why it cannot be read; raises OSError if its whole source is unreachable."""
    return _try(lambda key: make(part.read(key)), picture.key)


def _try(make: Callable[[Any], Made], what: Any) -> Made | str:
    try:
        return make(what)
    except ShardError as err:
        return str(err)
