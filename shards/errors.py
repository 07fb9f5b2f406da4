"""The errors that the whole project speaks; the command line turns each into one sentence and an exit code."""

from __future__ import annotations

from typing import Literal

DecodeErrorKind = Literal["empty", "truncated", "bomb", "range", "frames", "unreadable"]


class UsageError(ValueError):
    """The caller's mistake: one sentence with fact, value, consequence and remedy. Exit code 2."""


class ShardError(Exception):
    """Refused data: a picture, shard, index or bundle that must not be used. Exit code 3."""


class DecodeError(ShardError):
    """Bytes that are not one complete picture within the limits.

    kind: empty; truncated (its end is missing); bomb (over the pixel limit); range (values without a known range);
    frames (several, where one is asked for); unreadable (all else).
    """

    def __init__(self, message: str, kind: DecodeErrorKind = "unreadable") -> None:
        super().__init__(message)
        self.kind: DecodeErrorKind = kind


class Interrupted(Exception):  # noqa: N818, being stopped is no error
    """Stopped by Ctrl-C or SIGTERM after a safe point; the message says how to go on. Exit code 130."""
