"""The errors that the whole project raises; the command line turns each into one sentence and an exit code."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pydantic import ValidationError

DecodeErrorKind = Literal["empty", "truncated", "bomb", "range", "frames", "unreadable"]


class UsageError(ValueError):
    """The caller's mistake: one sentence with fact, value, consequence and remedy. Exit code 2."""


class ShardError(Exception):
    """Refused data: a picture, shard, index or bundle that must not be used. Exit code 3."""


class DecodeError(ShardError):
    """Bytes that are not one complete picture within the limits.

    kind: empty; truncated (its end is missing); bomb (over the pixel limit); range (values without a known range);
    frames (several, but only one is allowed); unreadable (everything else).
    """

    def __init__(self, message: str, kind: DecodeErrorKind = "unreadable") -> None:
        super().__init__(message)
        self.kind: DecodeErrorKind = kind


class Interrupted(Exception):  # noqa: N818, being stopped is no error
    """Stopped by Ctrl-C or SIGTERM after a safe point; the message explains how to resume. Exit code 130."""


def explain_invalid(err: ValidationError, spell: Callable[[str], str] = str) -> str:
    """Return the first error of a pydantic model as a sentence: where, what is wrong, and what it got.

    Args:
        err: The model's error.
        spell: Turns the name of a field, for example `optim.peak_lr`, into the user's name for it.
    """
    first = err.errors(include_url=False)[0]
    message, where = first["msg"].removeprefix("Value error, "), ".".join(str(part) for part in first["loc"])
    if not where:  # it concerns several fields, which the sentence names
        return message
    has_input = first["type"] not in ("missing", "extra_forbidden", "json_invalid") and ", got " not in message
    got = f", got {textwrap.shorten(repr(first['input']), 200, placeholder=' ...')}" if has_input else ""
    return f"{spell(where)}: {message[0].lower()}{message[1:]}{got}"
