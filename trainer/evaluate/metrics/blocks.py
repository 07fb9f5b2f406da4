"""Process tables of rows by classes in blocks: with ten thousand classes one float64 copy takes gigabytes."""

from __future__ import annotations

from collections.abc import Iterator

CELLS = 1 << 21
"""Cells per block, 16 MiB of float64."""


def cut_rows(num_rows: int, width: int) -> Iterator[slice]:
    """Yield slices that cover rows of `width` cells each, in order.

    >>> list(cut_rows(3, CELLS // 2))
    [slice(0, 2, None), slice(2, 3, None)]
    """
    step = max(1, CELLS // max(1, width))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))
