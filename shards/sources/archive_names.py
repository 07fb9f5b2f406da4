"""File names that archives store in the encoding of the machine that wrote them."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from pathlib import Path

from shards.errors import UsageError

_GUESSES = ("utf-8", "gbk")
"""In the order in which they are tried: text in gbk is almost never valid utf-8 by chance."""
_EXAMPLES = "cp850, cp437, gbk, shift_jis"


def check_encoding(name: str) -> str:
    """Return the name of an encoding of text.

    Raises:
        UsageError: Python knows none of this name.

    >>> check_encoding("CP850")
    'cp850'
    """
    try:
        codec = codecs.lookup(name)
        b"a".decode(name)  # some codecs turn bytes into bytes
    except (LookupError, ValueError) as err:
        raise UsageError(f"--names: no encoding of text is called '{name}'; there are {_EXAMPLES} and others") from err
    return codec.name


def decode_names(
    path: Path, raw: Sequence[bytes], fallback: str, encoding: str | None = None
) -> tuple[list[str], list[str]]:
    """Return names of an archive as text, all in the one encoding that fits them, and a note where it was guessed.

    Args:
        path: The archive, for the note.
        raw: Names that the archive does not say the encoding of.
        fallback: Encoding that can read any bytes.
        encoding: What the user says that they are in, which is not doubted.

    Raises:
        UsageError: A name that cannot be read in the encoding that the user says.

    >>> decode_names(Path("a.zip"), ["正常/1.jpg".encode("gbk")], "cp437")[0]
    ['正常/1.jpg']
    >>> decode_names(Path("a.zip"), ["Käfer/1.jpg".encode("cp850")], "cp437")[0]
    ['Käfer/1.jpg']
    """
    if encoding is not None:
        return [_decode(path, name, encoding) for name in raw], []
    if all(name.isascii() for name in raw):
        return [name.decode("ascii") for name in raw], []
    for guess in (*_GUESSES, fallback):
        try:
            names = [name.decode(guess) for name in raw]
        except UnicodeDecodeError:
            continue
        if guess == "gbk" and not _look_chinese(names):
            continue
        example = next(text for text, name in zip(names, raw, strict=True) if not name.isascii())
        return names, [
            f"{path} does not say how its names are encoded; they were read as {guess}, which is a guess: '{example}'. "
            f"If that is wrong, pack with --names and the encoding ({_EXAMPLES})"
        ]
    raise AssertionError(f"{fallback} reads any bytes")


def _decode(path: Path, name: bytes, encoding: str) -> str:
    try:
        return name.decode(encoding)
    except UnicodeDecodeError as err:
        raise UsageError(
            f"--names {encoding}: {path} has the name {name!r}, which is none in {encoding}; give another encoding, or "
            "leave --names out to have it guessed"
        ) from err


def _look_chinese(names: Iterable[str]) -> bool:
    """Return whether most letters beyond ASCII are of the common ones; a western letter takes the one behind it along.

    >>> _look_chinese(["图片"]), _look_chinese(["Käfer".encode("cp850").decode("gbk")])
    (True, False)
    """
    letters = [letter for name in names for letter in name if not letter.isascii()]
    common = sum(_is_common(letter) for letter in letters)
    return 2 * common > len(letters)


def _is_common(letter: str) -> bool:
    try:
        letter.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return True


def use_slashes(names: Sequence[str], windows: Sequence[bool]) -> list[str]:
    r"""Return names with `/`, where a program wrote them against the rules with backslashes.

    No file of Windows has a backslash in its name. Elsewhere it may, and is one in a name that has `/` as well.

    Args:
        names: Of files and folders.
        windows: Whether each was written on Windows, as far as the archive says.

    >>> use_slashes(["a\\1.jpg", "b/c\\d.jpg", "b/c\\d.jpg"], [False, False, True])
    ['a/1.jpg', 'b/c\\d.jpg', 'b/c/d.jpg']
    """
    turns = (at or "/" not in name for name, at in zip(names, windows, strict=True))
    return [
        (name.replace("\\", "/") if turn else name).removeprefix("./") for name, turn in zip(names, turns, strict=True)
    ]
