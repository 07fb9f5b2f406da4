"""Digits of 28x28 pixels as strokes, and the 1,797 real digits of 8x8 pixels in scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from trainer.recipes.data.canvas import Point, draw_strokes, make_image
from trainer.recipes.data.layout import LookAlike, Part

Line = list[Point]


def draw_digit(label: str, side: int, rng: np.random.Generator) -> Image.Image:
    """Return a white digit on black, square and gray, slanted, turned, stretched and shifted like handwriting."""
    shear, turn = rng.uniform(-0.25, 0.25), rng.uniform(-0.2, 0.2)
    scale, shift = rng.uniform(0.5, 0.72, 2), rng.uniform(-0.08, 0.08, 2)
    cos, sin = np.cos(turn), np.sin(turn)

    def place(point: Point) -> Point:
        x, y = (np.array(point) - 0.5 + rng.normal(0, 0.015, 2)) * scale
        x += shear * y
        return 0.5 + x * cos - y * sin + shift[0], 0.5 + x * sin + y * cos + shift[1]

    lines = [[place(point) for point in line] for line in _DIGITS[label]]
    ink = draw_strokes((side, side), lines, rng.uniform(0.06, 0.11))
    return make_image(ink * rng.uniform(200, 255))


def write_real_digits(out: Path, samples: int | None, labels: np.random.Generator | None) -> int:
    """Write scikit-learn's digits as `CLASS/NUMBER.png`, 8x8 gray; return how many.

    Args:
        out: Folder to fill.
        samples: Number of digits to write, from the first; None: all 1,797.
        labels: If given, shuffles the labels over the pictures.
    """
    from sklearn.datasets import load_digits  # late: it takes a second, and only this set needs it

    digits = load_digits()
    images, classes = digits.images[:samples], digits.target[:samples]
    if labels is not None:
        classes = labels.permutation(classes)
    for number, (image, label) in enumerate(zip(images, classes, strict=True)):
        folder = out / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        make_image(image.astype(np.float32) * (255 / 16)).save(folder / f"{number:04d}.png")  # values are 0..16
    return len(images)


def _arc(x: float, y: float, x_radius: float, y_radius: float, start: float, end: float) -> Line:
    """Return points of an ellipse from `start` to `end`, in degrees clockwise from the right."""
    turns = np.radians(np.linspace(start, end, 14))
    return [(float(x + x_radius * np.cos(t)), float(y + y_radius * np.sin(t))) for t in turns]


_DIGITS: dict[str, list[Line]] = {
    "0": [_arc(0.5, 0.5, 0.32, 0.48, 0, 360)],
    "1": [[(0.3, 0.2), (0.55, 0.02), (0.55, 0.98)]],
    "2": [[*_arc(0.5, 0.28, 0.32, 0.26, 190, 380), (0.15, 0.97), (0.88, 0.97)]],
    "3": [[*_arc(0.46, 0.26, 0.32, 0.24, 200, 440), *_arc(0.46, 0.73, 0.35, 0.25, 275, 520)]],
    "4": [[(0.62, 0.0), (0.12, 0.65), (0.92, 0.65)], [(0.68, 0.4), (0.68, 1.0)]],
    "5": [[(0.82, 0.03), (0.24, 0.03), (0.2, 0.45), *_arc(0.48, 0.68, 0.34, 0.29, 235, 510)]],
    "6": [[(0.72, 0.02), (0.3, 0.4), *_arc(0.48, 0.7, 0.3, 0.28, 190, 560)]],
    "7": [[(0.12, 0.04), (0.86, 0.04), (0.42, 0.98)]],
    "8": [_arc(0.5, 0.26, 0.26, 0.24, 0, 360), _arc(0.5, 0.74, 0.32, 0.24, 0, 360)],
    "9": [_arc(0.5, 0.3, 0.29, 0.28, 0, 360), [(0.79, 0.3), (0.74, 0.6), (0.6, 1.0)]],
}

DIGITS = LookAlike(
    classes=dict.fromkeys(_DIGITS, 1.0),
    parts=(Part("", 1.0),),
    samples=5000,
    side=28,
    draw=draw_digit,
    name_file=lambda _part, label, number: f"{label}_{number:05d}.png",
)
