"""Answers for many pictures with a bounded number of requests at a time, in the order of the pictures."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.client.answer import Answer
from cluster.client.clients import AsyncClient
from cluster.client.problem import PictureRefusedError
from cluster.client.talks import Wishes

_AHEAD: Final = 4
"""Pictures in hand for each request at a time: a picture that must wait does not hold up those behind it."""


@dataclass(frozen=True)
class Row:
    """The answer for one picture, or why the endpoint refuses it."""

    path: str
    answer: Answer | None
    refused: str | None = None


async def ask_row(client: AsyncClient, path: Path, wishes: Wishes) -> Row:
    """Return the row of a file; raises like `Client.predict`, except for a refused picture."""
    name = os.fsencode(path).decode("utf-8", "backslashreplace")  # as in the tables of `trainer.predict`
    try:
        return Row(name, await client.predict(path, top_k=wishes.top_k, threshold=wishes.threshold))
    except PictureRefusedError as err:
        return Row(name, None, str(err))


async def ask_all(
    ask: Callable[[Path], Awaitable[Row]], paths: Iterable[Path], at_once: int, take: Callable[[Row], None]
) -> None:
    """Call `take` with the row of each path, in order.

    If it is cancelled, or a request fails, `take` still gets the rows that are finished.

    Args:
        ask: Returns the row of a path.
        paths: The pictures.
        at_once: Requests at a time, at least 1.
        take: Gets the rows.
    """
    rest, turn, in_hand = iter(paths), asyncio.Semaphore(at_once), deque[asyncio.Task[Row]]()

    async def work(path: Path) -> Row:
        async with turn:
            return await ask(path)

    try:
        while True:
            while len(in_hand) < _AHEAD * at_once and (path := next(rest, None)) is not None:
                in_hand.append(asyncio.create_task(work(path)))
            if not in_hand:
                return
            row = await in_hand[0]
            in_hand.popleft()
            take(row)
    finally:
        for row in await _end(in_hand):
            take(row)


async def _end(tasks: Iterable[asyncio.Task[Row]]) -> list[Row]:
    """Cancel tasks, and return the rows of those that were finished."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    return [row for row in ended if isinstance(row, Row)]
