"""The user's description of the folders above pictures: `--layout split/class`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shards.errors import UsageError

Place = tuple[str, str | None]
"""Class and split of a picture; None where the source gives no split."""
_FORM = (
    "it is made of the words split, class and any (a folder without a meaning) or the names of folders, from the "
    "top down, with class once and split at most once; it may end in /... (everything below) or /. (nothing below)"
)


@dataclass(frozen=True)
class Pattern:
    """A word for each level of folders.

    exact: leave out pictures in folders below the last level. given: as the user spelt it.
    """

    words: tuple[str, ...]
    exact: bool = False
    given: str = field(default="", compare=False, repr=False)

    def __str__(self) -> str:
        if self.given:
            return self.given
        return "/".join(self.words) + ("/." if self.exact else "" if "split" in self.words else "/...")

    def fits(self, parts: Sequence[str]) -> bool:
        """Return whether a folder fits the pattern; a split folder may have any name."""
        if len(parts) < len(self.words) or (self.exact and len(parts) > len(self.words)):
            return False
        pairs = zip(self.words, parts, strict=False)
        return all(word in ("split", "class", "any") or word.casefold() == part.casefold() for word, part in pairs)

    def name_split(self, parts: Sequence[str]) -> str | None:
        """Return the name of the split folder above a folder that fits, None if the pattern has no split."""
        return parts[self.words.index("split")] if "split" in self.words else None

    def place(self, parts: Sequence[str], splits: Mapping[str, str]) -> Place | None:
        """Return class and split of a folder, None if its pictures are left out.

        Args:
            parts: The folders on the way to it.
            splits: Split by name of the split folder.

        >>> parse_pattern("split/class").place(("VALID", "cat", "2019"), {"VALID": "val"})
        ('cat', 'val')
        >>> parse_pattern("class/images").place(("COVID", "masks"), {}) is None
        True
        """
        if not self.fits(parts):
            return None
        label, name = parts[self.words.index("class")], self.name_split(parts)
        if name is None:
            return label, None
        return (label, splits[name]) if name in splits else None


def parse_pattern(text: str) -> Pattern:
    """Return the pattern from a value of `--layout`.

    >>> parse_pattern("class/...")
    Pattern(words=('class',), exact=False)

    Raises:
        UsageError: Not of that form.
    """
    words = text.strip("/").split("/")
    end = words[-1] if words[-1] in ("...", ".") else ""
    words = words[:-1] if end else words
    if words.count("class") != 1 or words.count("split") > 1 or {"", ".", "..", "..."} & set(words):
        raise UsageError(
            f"--layout sets what the folders mean, for example split/class or class/split; {_FORM}: '{text}'"
        )
    return Pattern(tuple(words), end == ".", text)
