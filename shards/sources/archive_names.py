"""File names that archives store in the encoding of the machine that wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_ENCODINGS = ("utf-8", "gbk")
"""In the order in which they are tried: text in gbk is almost never valid utf-8 by chance."""


def decode_names(path: Path, raw: Sequence[bytes], fallback: str) -> tuple[list[str], list[str]]:
    """Return names of an archive as text, all in the one encoding that fits them, and a note where it was guessed.

    Args:
        path: The archive, for the note.
        raw: Names that the archive does not say the encoding of.
        fallback: Encoding that can read any bytes.

    >>> decode_names(Path("a.zip"), ["正常/1.jpg".encode("gbk")], "cp437")[0]
    ['正常/1.jpg']
    """
    if all(name.isascii() for name in raw):
        return [name.decode("ascii") for name in raw], []
    for encoding in (*_ENCODINGS, fallback):
        try:
            names = [name.decode(encoding) for name in raw]
        except UnicodeDecodeError:
            continue
        example = next(text for text, name in zip(names, raw, strict=True) if not name.isascii())
        return names, [f"{path} does not say how its names are encoded; they were read as {encoding}: '{example}'"]
    raise AssertionError(f"{fallback} reads any bytes")
