"""The file that lists unreadable pictures with the reason for each."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from shards.files.atomic import write_atomically

UNREADABLE = "unreadable.csv"


def write_unreadable(path: Path, rows: Iterable[tuple[str, str]]) -> bool:
    """Write the path and reason of each picture; if there are none, remove the file of an earlier command.

    Return whether the file exists now.
    """
    pairs = iter(rows)
    first = next(pairs, None)
    if first is None:
        path.unlink(missing_ok=True)
        return False
    with write_atomically(path) as file:
        file.write(_join(["path", "reason"]))
        file.write(_join(first))
        for pair in pairs:
            file.write(_join(pair))
    return True


def _join(values: Sequence[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue().encode()
