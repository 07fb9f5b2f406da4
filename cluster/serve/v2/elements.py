"""The elements of a binary BYTES tensor: each after its length."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cluster.serve.v2.errors import make_refusal
from cluster.serve.v2.request import PICTURE

_LENGTH_BYTES: Final = 4
"""Bytes of the length before each element, little-endian."""


def pack_elements(elements: Iterable[bytes]) -> bytes:
    """Return the binary form of elements.

    >>> pack_elements([b"hi", b""])
    b'\\x02\\x00\\x00\\x00hi\\x00\\x00\\x00\\x00'
    """
    return b"".join(len(each).to_bytes(_LENGTH_BYTES, "little") + each for each in elements)


def split_elements(data: memoryview, number: int) -> list[bytes]:
    """Return the elements of a binary BYTES tensor [number], each after its length.

    Raises:
        ProblemError: A length is beyond the end, or bytes are left over.

    >>> split_elements(memoryview(bytes([2, 0, 0, 0, 104, 105, 0, 0, 0, 0])), 2)
    [b'hi', b'']
    """
    elements: list[bytes] = []
    at = 0
    for place in range(number):
        start = at + _LENGTH_BYTES
        if start > len(data):
            raise make_refusal(
                f"{PICTURE} has shape [{number}], but its data ends before the length of {PICTURE}[{place}]"
            )
        at = start + int.from_bytes(data[at:start], "little")
        if at > len(data):
            raise make_refusal(
                f"{PICTURE}[{place}] is said to have {at - start:,} bytes, but {len(data) - start:,} follow; before "
                "each element stands its length in 4 bytes, little-endian"
            )
        elements.append(bytes(data[start:at]))
    if at < len(data):
        raise make_refusal(f"{PICTURE} has shape [{number}], but {len(data) - at:,} bytes follow its last element")
    return elements
