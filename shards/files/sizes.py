"""Sizes as people write them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from shards.errors import UsageError

_UNITS = {"": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def parse_size(text: str) -> int:
    """Return the number of bytes.

    >>> parse_size("4MiB")
    4194304

    Raises:
        UsageError: Not a number with one of the units KiB, MiB, GiB, KB, MB, GB.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise UsageError(f"a size is a number with KiB, MiB, GiB, KB, MB or GB, for example 64MiB, got '{text}'")
    return int(float(match[1]) * unit)


def format_size(number: int) -> str:
    """Return bytes as people read them.

    >>> format_size(512), format_size(2 << 10), format_size(5 << 20), format_size(3 << 30)
    ('512 bytes', '2.0 KiB', '5.0 MiB', '3.0 GiB')
    """
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} bytes"


def measure(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder; what is not there, or goes meanwhile, has none."""
    paths = [path]
    if path.is_dir():
        paths = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    total = 0
    for each in paths:
        try:
            total += each.stat().st_size
        except FileNotFoundError:
            continue
    return total
