"""Short messages between the command and the ranks of a run, kept by the Ray cluster itself.

Files would do on a disk that all machines share; a run in an object store has no such disk, and NFS shows a new file
only after a while.
"""

from __future__ import annotations

import hashlib
from typing import Literal, get_args

from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_put

Message = Literal["stop", "save", "refusal", "progress", "attempt", "room"]
MESSAGES: tuple[Message, ...] = get_args(Message)
_NAMESPACE = "shardline"


class Board:
    """The messages of one run; any process of the cluster reads and writes them."""

    def __init__(self, place: str) -> None:
        self._prefix = hashlib.sha256(place.encode()).hexdigest()[:24]

    def post(self, message: Message, text: str = "") -> None:
        _internal_kv_put(self._key(message), text.encode(), namespace=_NAMESPACE)

    def read(self, message: Message) -> str | None:
        """Return the text of a message, None where nobody has posted it."""
        found: bytes | None = _internal_kv_get(self._key(message), namespace=_NAMESPACE)
        return None if found is None else found.decode()

    def remove(self, *messages: Message) -> None:
        for message in messages or MESSAGES:
            _internal_kv_del(self._key(message), namespace=_NAMESPACE)

    def _key(self, message: Message) -> str:
        return f"{self._prefix}/{message}"
