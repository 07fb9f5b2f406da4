"""Short messages between the command and the ranks of a run, stored by the Ray cluster itself.

Files would need a disk shared by all machines. A run in an object store has none, and NFS shows new files with a delay.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections import deque
from typing import Literal, get_args

from shards.workers import ray_private

Message = Literal["stop", "save", "refusal", "progress", "attempt", "room"]
MESSAGES: tuple[Message, ...] = get_args(Message)


class Board:
    """The messages of one run; any process of the cluster can read and write them."""

    def __init__(self, place: str) -> None:
        self._prefix = hashlib.sha256(place.encode()).hexdigest()[:24]

    def post(self, message: Message, text: str = "") -> None:
        ray_private.put_text(self._key(message), text)

    def read(self, message: Message) -> str | None:
        """Return the text of a message, None if it was not posted."""
        return ray_private.read_text(self._key(message))

    def remove(self, *messages: Message) -> None:
        """Remove messages; without arguments, remove all messages and remaining lines."""
        for message in messages or MESSAGES:
            ray_private.remove_text(self._key(message))
        if not messages:
            self.take_lines()

    def post_line(self, line: str) -> None:
        """Add a line, which is taken once."""
        ray_private.put_text(f"{self._lines}{time.time_ns():020d}-{uuid.uuid4().hex[:8]}", line)

    def take_lines(self) -> list[str]:
        """Return the lines since the last call, in the order of posting."""
        lines = []
        for key in ray_private.list_texts(self._lines):
            line = ray_private.read_text(key)
            ray_private.remove_text(key)
            lines += [] if line is None else [line]
        return lines

    @property
    def _lines(self) -> str:
        return f"{self._prefix}/line/"

    def _key(self, message: Message) -> str:
        return f"{self._prefix}/{message}"


class Outbox:
    """Lines of one rank for the board, posted by a thread, which may wait for the cluster."""

    def __init__(self, board: Board) -> None:
        self._board, self._lines = board, deque[str]()

    def add(self, line: str) -> None:
        self._lines.append(line)

    def post(self) -> None:
        while self._lines:
            self._board.post_line(self._lines[0])
            self._lines.popleft()
