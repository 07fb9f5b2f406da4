"""The layout of a look-alike set: files, classes and folders, without pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

Draw = Callable[[str, int, np.random.Generator], Image.Image]
"""Class, longer side in pixels, and the picture's random generator -> the picture."""
NameFile = Callable[[str, str, int], str]
"""Split, class and number within the whole set -> file name; its extension is the format."""


@dataclass(frozen=True)
class Part:
    """A split. `folder` is empty if the class folders are at the top level.

    share: Share of the pictures that splits without a `count` divide among themselves.
    count: A fixed number of pictures, spread equally over the classes.
    """

    folder: str
    share: float = 0.0
    count: int | None = None


@dataclass(frozen=True)
class LookAlike:
    """The layout of a set and the function that draws it.

    classes: Share of each class.
    samples: Default number of pictures.
    side: Default longer side of most pictures, pixels.
    """

    classes: Mapping[str, float]
    parts: tuple[Part, ...]
    samples: int
    side: int
    draw: Draw
    name_file: NameFile


@dataclass(frozen=True)
class Planned:
    """One picture to draw.

    path: Relative to the set's folder.
    number: Position in the set; together with the seed it decides every pixel.
    drawn: The class that the pixels show; differs from the folder's class if labels are shuffled.
    """

    path: str
    number: int
    drawn: str


def plan_pictures(look: LookAlike, samples: int, seed: int, shuffle_labels: bool) -> list[Planned]:
    """Return the pictures of a set of `samples`, ordered by split and class.

    shuffle_labels: Shuffle the drawn classes over the pictures of each split. The class counts stay the same, but the
        pixels no longer predict the folder, so a correct run stays at chance.
    """
    rng = np.random.default_rng((seed, samples))
    planned: list[Planned] = []
    for part, total in zip(look.parts, count_parts(look, samples), strict=True):
        shares = dict.fromkeys(look.classes, 1.0) if part.count is not None else look.classes
        labels = [label for label, count in divide(total, shares).items() for _ in range(count)]
        drawn = [labels[place] for place in rng.permutation(len(labels))] if shuffle_labels else labels
        for label, shown in zip(labels, drawn, strict=True):
            name = look.name_file(part.folder, label, len(planned))
            path = "/".join(filter(None, (part.folder, label, name)))
            planned.append(Planned(path, len(planned), shown))
    return planned


def count_parts(look: LookAlike, samples: int) -> list[int]:
    """Return the number of pictures of each split."""
    fixed = sum(part.count or 0 for part in look.parts)
    shares = {part.folder: part.share for part in look.parts if part.count is None}
    divided = divide(max(samples - fixed, 0), shares)
    return [divided[part.folder] if part.count is None else part.count for part in look.parts]


def divide(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Return whole numbers that sum to `total`, each as near to its share as possible.

    >>> divide(10, {"NORMAL": 1, "PNEUMONIA": 3})
    {'NORMAL': 3, 'PNEUMONIA': 7}
    """
    whole = sum(shares.values())
    ends = np.rint(np.cumsum([total * share / whole for share in shares.values()]) + 1e-9).astype(int)
    counts = np.diff(ends, prepend=0)
    return {name: int(count) for name, count in zip(shares, counts, strict=True)}
