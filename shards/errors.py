"""The errors that the whole project speaks; the command line turns each into one sentence and an exit code."""

from __future__ import annotations


class UsageError(ValueError):
    """The caller's mistake: one sentence with fact, value, consequence and remedy. Exit code 2."""


class ShardError(Exception):
    """Refused data: a picture, shard, index or bundle that must not be used. Exit code 3."""


class DecodeError(ShardError):
    """Bytes that are not one complete picture within the limits."""


class Interrupted(Exception):  # noqa: N818, being stopped is no error
    """Stopped by Ctrl-C or SIGTERM after a safe point; the message says how to go on. Exit code 130."""
