"""A look-alike set: which files of which class lie where. No pixel is known here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

Draw = Callable[[str, int, np.random.Generator], Image.Image]
"""Class, longer side in pixels, and the picture's own generator -> the picture."""
NameFile = Callable[[str, str, int], str]
"""Split, class and number within the whole set -> file name; its ending is the format."""


@dataclass(frozen=True)
class Part:
    """A split. `folder` is empty where the class folders stand at the top.

    share: Of the pictures that parts without a `count` divide among themselves.
    count: Pictures whatever the size of the set, spread equally over the classes.
    """

    folder: str
    share: float = 0.0
    count: int | None = None


@dataclass(frozen=True)
class LookAlike:
    """How a set is laid out and drawn.

    classes: Share of each.
    samples: Pictures unless said otherwise.
    side: Longer side of most pictures, pixels, unless said otherwise.
    """

    classes: Mapping[str, float]
    parts: tuple[Part, ...]
    samples: int
    side: int
    draw: Draw
    name_file: NameFile


@dataclass(frozen=True)
class Planned:
    """One picture to be made.

    path: Below the set's folder.
    number: Position in the set; together with the seed it decides every pixel.
    drawn: The class that the pixels show; another than the folder's where labels are shuffled.
    """

    path: str
    number: int
    drawn: str


def plan_pictures(look: LookAlike, samples: int, seed: int, shuffle_labels: bool) -> list[Planned]:
    """Return the pictures of a set of `samples`, part by part and class by class.

    shuffle_labels: Deal the drawn classes at random over the pictures of each part: as many of each class as before,
        but nothing in a picture tells its folder, so that an honest run stays at chance.
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
    """Return the pictures of each part."""
    fixed = sum(part.count or 0 for part in look.parts)
    shares = {part.folder: part.share for part in look.parts if part.count is None}
    divided = divide(max(samples - fixed, 0), shares)
    return [divided[part.folder] if part.count is None else part.count for part in look.parts]


def divide(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Return whole numbers that sum to `total`, each as near its share as that allows.

    >>> divide(10, {"NORMAL": 1, "PNEUMONIA": 3})
    {'NORMAL': 3, 'PNEUMONIA': 7}
    """
    whole = sum(shares.values())
    ends = np.rint(np.cumsum([total * share / whole for share in shares.values()]) + 1e-9).astype(int)
    counts = np.diff(ends, prepend=0)
    return {name: int(count) for name, count in zip(shares, counts, strict=True)}
