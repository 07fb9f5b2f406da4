"""Pictures of several labels: a red square, a green disc, blue bars, any of them at once, on noise."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.recipes.data.canvas import blend
from trainer.recipes.data.glyphs import draw_glyph

SHAPES = {"bars": (60.0, 80.0, 220.0), "disc": (60.0, 200.0, 80.0), "square": (220.0, 60.0, 60.0)}
"""Colour of each; the names are the classes."""
SETS = [labels for size in (1, 2, 3) for labels in itertools.combinations(SHAPES, size)]


def draw_shapes(labels: tuple[str, ...], rng: np.random.Generator, side: int = 32) -> Image.Image:
    """Return a picture of these shapes, each in a third of its own so that none hides another."""
    pixels = rng.normal(128, 20, (side, side, 3)).astype(np.float32)
    thirds = rng.permutation(3)
    for place, name in zip(thirds.tolist(), SHAPES, strict=True):
        centre = ((place + 0.5) / 3, rng.uniform(0.2, 0.8))
        if name in labels:
            pixels = blend(pixels, draw_glyph(name, (side, side), centre, 0.18), SHAPES[name])
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_shapes(root: Path, per_set: Mapping[str, int], *, shuffle_labels: bool = False) -> Path:
    """Write pictures of every set of shapes, so many of each to a split, and return the list that names their labels.

    Shuffled, the sets are dealt to the pictures at random, whatever they show.
    """
    rng, root = np.random.default_rng(0), Path(root)
    root.mkdir(parents=True)
    rows = []
    for split, count in per_set.items():
        drawn = [labels for labels in SETS for _ in range(count)]
        told = [drawn[k] for k in rng.permutation(len(drawn))] if shuffle_labels else drawn
        for number, (labels, said) in enumerate(zip(drawn, told, strict=True)):
            draw_shapes(labels, rng).save(root / f"{split}{number}.png")
            rows.append((f"{split}{number}.png", ";".join(said), split))
    with open(root / "list.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return root / "list.csv"
