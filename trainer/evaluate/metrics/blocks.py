"""Tables of rows by classes in blocks of rows: of ten thousand classes one copy in 64 bits is already a gigabyte."""

from __future__ import annotations

from collections.abc import Iterator

CELLS = 1 << 21
"""Of a block, float64 each: 16 MiB. What is smaller is one block."""


def cut_rows(num_rows: int, width: int) -> Iterator[slice]:
    """Yield slices that cover rows of `width` cells each, in order.

    >>> list(cut_rows(3, CELLS // 2))
    [slice(0, 2, None), slice(2, 3, None)]
    """
    step = max(1, CELLS // max(1, width))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))
