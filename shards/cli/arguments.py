"""Numbers as command-line arguments: counts, shares and sizes."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from shards.errors import UsageError
from shards.files.sizes import parse_size


def read_at_least(least: int) -> Callable[[str], int]:
    """Return a reader of whole numbers that are at least `least`, for argparse's `type`."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text}")
        return int(text)

    return read


read_count = read_at_least(1)


def read_size(text: str) -> int:
    """Return a number of bytes, for argparse's `type`; see `parse_size`."""
    try:
        return parse_size(text)
    except UsageError as err:
        raise argparse.ArgumentTypeError(str(err)) from err


def check_count(option: str, value: int | None, of: str) -> None:
    """Refuse a count below 1; None is fine.

    >>> check_count("--workers", 0, of="threads")
    Traceback (most recent call last):
    shards.errors.UsageError: --workers is a number of threads and must be at least 1, got 0
    """
    if value is not None and value < 1:
        raise UsageError(f"{option} is a number of {of} and must be at least 1, got {value}")


def check_share(option: str, value: float | None) -> None:
    """Refuse a share outside the open interval (0, 1); None is fine.

    >>> check_share("--conformal", 90.0)
    Traceback (most recent call last):
    shards.errors.UsageError: --conformal lies between 0 and 1, got 90; 0.9 means 90 %
    """
    if value is not None and not 0 < value < 1:
        raise UsageError(f"{option} lies between 0 and 1, got {value:g}; 0.9 means 90 %")
