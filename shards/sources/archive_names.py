"""File names in archives, stored in the encoding of the machine that wrote them."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from pathlib import Path

from shards.errors import UsageError

_GUESSES = ("utf-8", "gbk")
"""In the order tried: text in gbk is almost never valid utf-8 by chance."""
_EXAMPLES = "cp850, cp437, gbk, shift_jis"


def check_encoding(name: str) -> str:
    """Return the canonical name of a text encoding.

    Raises:
        UsageError: Python has no such encoding.

    >>> check_encoding("CP850")
    'cp850'
    """
    try:
        codec = codecs.lookup(name)
        b"a".decode(name)  # some codecs turn bytes into bytes
    except (LookupError, ValueError) as err:
        raise UsageError(f"--names: there is no text encoding '{name}'; there are {_EXAMPLES} and others") from err
    return codec.name


def decode_names(
    path: Path, raw: Sequence[bytes], fallback: str, encoding: str | None = None
) -> tuple[list[str], list[str]]:
    """Decode names of an archive, all with the one encoding that fits, and return a note if it was guessed.

    Args:
        path: The archive, for the note.
        raw: Names for which the archive declares no encoding.
        fallback: An encoding that can decode any bytes.
        encoding: The user's choice, which is always used.

    Raises:
        UsageError: A name that is invalid in the user's encoding.

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
            f"{path} does not declare how its names are encoded; they were read as {guess}, which is a guess: "
            f"'{example}'. If that is wrong, give the encoding with --names ({_EXAMPLES})"
        ]
    raise AssertionError(f"{fallback} decodes any bytes")


def _decode(path: Path, name: bytes, encoding: str) -> str:
    try:
        return name.decode(encoding)
    except UnicodeDecodeError as err:
        raise UsageError(
            f"--names {encoding}: {path} has the name {name!r}, which is invalid in {encoding}; give another "
            "encoding, or leave --names out to have it guessed"
        ) from err


def _look_chinese(names: Iterable[str]) -> bool:
    """Return whether most non-ASCII letters are common Chinese ones; a western letter misread as gbk absorbs the next
    one.

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
    r"""Return names with `/` where a program wrongly wrote backslashes.

    File names on Windows contain no backslash. Elsewhere they may; in a name that also has `/`, a backslash is kept.

    Args:
        names: Of files and folders.
        windows: Whether each was written on Windows, as far as the archive declares.

    >>> use_slashes(["a\\1.jpg", "b/c\\d.jpg", "b/c\\d.jpg"], [False, False, True])
    ['a/1.jpg', 'b/c\\d.jpg', 'b/c/d.jpg']
    """
    turns = (at or "/" not in name for name, at in zip(names, windows, strict=True))
    return [
        (name.replace("\\", "/") if turn else name).removeprefix("./") for name, turn in zip(names, turns, strict=True)
    ]
