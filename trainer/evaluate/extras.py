"""Optional parts of a result: a figure, a map, a gallery. One that fails is left out with a note.

A full disk is different: it ends the command, which completes the result when it is run again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from shards.files.disk import explain_disk

logger = logging.getLogger(__name__)

Made = TypeVar("Made")


def try_extra(what: str, make: Callable[[], Made], tell: Callable[[str], object] = lambda _: None) -> Made | None:
    """Return the result of `make`; if it fails, log why, pass the reason to `tell` and return None.

    Raises:
        Exception: A disk error of `make`.

    >>> try_extra("the map of a.png", lambda: 1 // 0, print)
    the map of a.png is left out (ZeroDivisionError: integer division or modulo by zero)
    """
    try:
        return make()
    except Exception as err:  # from a model or library: a picture must not cost hours of training
        if explain_disk(err) is not None:  # the same command can draw it once there is space
            raise
        sentence = f"{what} is left out ({describe_error(err)})"
        logger.warning("%s", sentence)
        tell(sentence)
        return None


def describe_error(err: Exception) -> str:
    """Return the type and first line of an error.

    >>> describe_error(KeyError("x"))
    "KeyError: 'x'"
    """
    return f"{type(err).__name__}: {str(err).strip().partition(chr(10))[0]}".removesuffix(": ")
