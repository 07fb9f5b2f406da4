"""What a result can do without: a figure, a map, a gallery. One that fails is left out, and that is told.

A disk that takes no more is no such failure: it ends the command, which finishes the result when it is run again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from shards.files.disk import explain_disk

logger = logging.getLogger(__name__)

Made = TypeVar("Made")


def try_extra(what: str, make: Callable[[], Made], tell: Callable[[str], object] = lambda _: None) -> Made | None:
    """Return what `make` makes; None where it fails, and then why goes to the log and, as a sentence, to `tell`.

    Raises:
        Exception: What a disk refused, as `make` raised it.

    >>> try_extra("the map of a.png", lambda: 1 // 0, print)
    the map of a.png is left out (ZeroDivisionError: integer division or modulo by zero)
    """
    try:
        return make()
    except Exception as err:  # of a model, a library: hours of training are not thrown away for a picture
        if explain_disk(err) is not None:  # nothing is thrown away: the same command draws it where there is room
            raise
        sentence = f"{what} is left out ({describe_error(err)})"
        logger.warning("%s", sentence)
        tell(sentence)
        return None


def describe_error(err: Exception) -> str:
    """Return kind and first line of an error.

    >>> describe_error(KeyError("x"))
    "KeyError: 'x'"
    """
    return f"{type(err).__name__}: {str(err).strip().partition(chr(10))[0]}".removesuffix(": ")
