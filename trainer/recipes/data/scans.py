"""Gray look-alikes: chest X-rays, CT slices and photographs of solar cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from trainer.recipes.data.canvas import (
    Floats,
    Shape,
    blend,
    draw_ellipse,
    draw_strokes,
    make_image,
    make_noise,
    scale_up,
)
from trainer.recipes.data.layout import LookAlike, Part

_COARSE = 256
"""Longer side, pixels, at which smooth shapes are drawn; grain has the full size."""


def draw_chest(label: str, side: int, rng: np.random.Generator) -> Image.Image:
    """Return a frontal chest X-ray, gray; PNEUMONIA has cloudy, mottled regions in the lungs.

    Exposure and contrast vary by more than the brightness of the clouds.
    """
    full = (round(side * rng.uniform(0.68, 0.85)), side)
    shape = _shrink(full)
    lungs = [_draw_lung(shape, 0.31, rng), _draw_lung(shape, 0.69, rng)]
    body = 120 + 40 * draw_ellipse(shape, (0.5, 0.55), (0.62, 0.6), soft=0.5) + 6 * make_noise(shape, 8, rng)
    body -= 85 * np.maximum(*lungs) * (1 + 0.15 * make_noise(shape, 10, rng))
    body += 16 * _draw_ribs(shape, rng) * np.maximum(*lungs)
    if label == "PNEUMONIA":
        body += _draw_clouds(shape, lungs, rng, _PNEUMONIA)
    spine = draw_ellipse(shape, (0.5, 0.5), (0.07, 0.9), soft=0.6)
    heart = draw_ellipse(shape, (0.56, rng.uniform(0.62, 0.68)), (0.19, 0.17), rng.uniform(0.4, 0.7), soft=0.4)
    body += 45 * spine + 60 * heart * (1 - spine)
    return _expose(body, full, rng, grain=4)


def draw_ct(label: str, side: int, rng: np.random.Generator) -> Image.Image:
    """Return an axial CT slice of the chest in a lung window; COVID has ground-glass spots near the pleura.

    In each class half of the pictures are RGB and half gray.
    """
    full = (round(side * rng.uniform(0.68, 0.8)), side)
    shape = _shrink(full)
    wall = draw_ellipse(shape, (0.5, 0.5), (rng.uniform(0.6, 0.64), rng.uniform(0.44, 0.48)), soft=0.04)
    tilt = rng.uniform(-0.15, 0.15)
    lungs = [
        draw_ellipse(shape, (x + rng.uniform(-0.02, 0.02), 0.5), (0.22, 0.33), tilt + lean, soft=0.06)
        for x, lean in ((0.29, 0.15), (0.71, -0.15))
    ]
    slice_ = 12 + 165 * wall + 8 * make_noise(shape, 20, rng) * wall
    slice_ = blend(slice_, np.maximum(*lungs), 38.0)
    slice_ += 150 * _draw_vessels(shape, lungs, rng)
    if label == "COVID":
        slice_ += _draw_clouds(shape, lungs, rng, _COVID)
    slice_ = blend(slice_, draw_ellipse(shape, (0.5, 0.86), (0.07, 0.06), soft=0.3), 235.0)
    image = _expose(slice_, full, rng, grain=5)
    return image.convert("RGB") if rng.random() < 0.5 else image


def draw_cell(label: str, side: int, rng: np.random.Generator) -> Image.Image:
    """Return a solar cell in electroluminescence, square and gray; DEFECTIVE has cracks and a dead region."""
    shape = (side, side)
    cell = 135 + 14 * make_noise(shape, 5, rng) + 10 * make_noise(shape, 40, rng)
    bars = [[(0.0, y), (1.0, y)] for y in (0.22, 0.5, 0.78)]
    cell = blend(cell, draw_strokes(shape, bars, 0.02), 60.0)
    if label == "DEFECTIVE":
        cell -= 85 * draw_ellipse(shape, _draw_place(rng), (rng.uniform(0.12, 0.2), rng.uniform(0.1, 0.16)), soft=0.5)
        cracks = [_draw_crack(rng) for _ in range(rng.integers(2, 5))]
        cell = blend(cell, draw_strokes(shape, cracks, 0.022), 25.0)
    edge = [[(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0)]]
    return _expose(blend(cell, draw_strokes(shape, edge, 0.03), 15.0), shape, rng, grain=5)


def _shrink(full: Shape) -> Shape:
    scale = min(1.0, _COARSE / max(full))
    return max(16, round(full[0] * scale)), max(16, round(full[1] * scale))


def _expose(pixels: Floats, full: Shape, rng: np.random.Generator, grain: float) -> Image.Image:
    """Return the picture at its full size, with random brightness, contrast and grain."""
    sharp = scale_up(pixels, full) * rng.uniform(0.85, 1.15) + rng.uniform(-18, 18)
    return make_image(sharp + grain * rng.standard_normal(full, dtype=np.float32))


def _draw_lung(shape: Shape, x: float, rng: np.random.Generator) -> Floats:
    centre = (x + rng.uniform(-0.02, 0.02), rng.uniform(0.46, 0.5))
    radii = (rng.uniform(0.19, 0.22), rng.uniform(0.36, 0.41))
    return draw_ellipse(shape, centre, radii, np.sign(0.5 - x) * rng.uniform(0.05, 0.15), soft=0.15)


def _draw_ribs(shape: Shape, rng: np.random.Generator) -> Floats:
    """Return values 0..1: nine pairs of arcs that descend from the spine."""
    height, width = shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    fall = rng.uniform(0.5, 0.8) * (x / width - 0.5) ** 2
    return (np.sin(2 * np.pi * 9 * (y / height - fall) + rng.uniform(0, 6)) > 0.55).astype(np.float32)


@dataclass(frozen=True)
class _Clouds:
    """The appearance of soft spots in the lungs.

    number: Smallest and largest number of spots. radius: The same for the radius, as a share of the shorter side.
    speckle: Strength of the mottling relative to the brightness. cells: Number of speckles along the longer side.
    """

    number: tuple[int, int]
    radius: tuple[float, float]
    brightness: float
    speckle: float
    cells: int


# Mottled like consolidated lungs with air in them: a change of mean brightness alone would not survive AutoAugment's
# inversion and equalisation.
_PNEUMONIA = _Clouds((4, 7), (0.13, 0.2), brightness=95, speckle=1.3, cells=20)
_COVID = _Clouds((2, 4), (0.1, 0.17), brightness=105, speckle=0.3, cells=25)


def _draw_clouds(shape: Shape, lungs: list[Floats], rng: np.random.Generator, look: _Clouds) -> Floats:
    """Return the brightness that the spots add."""
    clouds = np.zeros(shape, dtype=np.float32)
    inside = np.maximum(*lungs)
    for _ in range(rng.integers(*look.number, endpoint=True)):
        row, column = rng.choice(np.argwhere(inside > 0.9))
        centre = ((column + 0.5) / shape[1], (row + 0.5) / shape[0])
        radii = (rng.uniform(*look.radius), rng.uniform(*look.radius))
        clouds = np.maximum(clouds, draw_ellipse(shape, centre, radii, rng.uniform(0, 3), soft=0.7))
    return look.brightness * clouds * inside * (1 + look.speckle * make_noise(shape, look.cells, rng))


def _draw_vessels(shape: Shape, lungs: list[Floats], rng: np.random.Generator) -> Floats:
    """Return values 0..1: the short bright branches in every lung."""
    lines = []
    for row, column in rng.choice(np.argwhere(np.maximum(*lungs) > 0.9), 30):
        x, y = (column + 0.5) / shape[1], (row + 0.5) / shape[0]
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.005, 0.03)
        lines.append([(x, y), (x + length * np.cos(angle), y + length * np.sin(angle))])
    return draw_strokes(shape, lines, 0.008)


def _draw_place(rng: np.random.Generator) -> tuple[float, float]:
    return rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8)


def _draw_crack(rng: np.random.Generator) -> list[tuple[float, float]]:
    x, y = _draw_place(rng)
    angle = rng.uniform(0, 2 * np.pi)
    points = [(x, y)]
    for _ in range(6):
        angle += rng.uniform(-0.5, 0.5)
        x, y = x + 0.07 * np.cos(angle), y + 0.07 * np.sin(angle)
        points.append((x, y))
    return points


def _name_chest(_part: str, label: str, number: int) -> str:
    if label == "NORMAL":
        return f"IM-{number:04d}-0001.jpeg"
    kind = "virus" if number // 3 % 3 == 0 else "bacteria"
    return f"person{number // 3}_{kind}_{number}.jpeg"  # three pictures of a patient


def _name_ct(_part: str, label: str, number: int) -> str:
    ending = "png" if number % 2 else "jpg"
    return f"2020.03.{number % 28 + 1:02d}.{number}-p1-{number}.{ending}" if label == "COVID" else f"{number}.{ending}"


CHEST_XRAY = LookAlike(
    classes={"NORMAL": 0.25, "PNEUMONIA": 0.75},
    parts=(Part("train", 0.89), Part("test", 0.11), Part("val", count=16)),
    samples=1200,
    side=800,
    draw=lambda label, side, rng: draw_chest(label, round(side * rng.uniform(0.75, 1.25)), rng),
    name_file=_name_chest,
)
COVID_CT = LookAlike(
    classes={"COVID": 0.47, "NonCOVID": 0.53},
    parts=(Part("", 1.0),),
    samples=746,
    side=400,
    draw=lambda label, side, rng: draw_ct(label, round(side * rng.uniform(0.8, 1.2)), rng),
    name_file=_name_ct,
)
ELPV = LookAlike(
    classes={"DEFECTIVE": 0.43, "NORMAL": 0.57},
    parts=(Part("train", 0.64), Part("val", 0.11), Part("test", 0.25)),
    samples=2624,
    side=300,
    draw=draw_cell,
    name_file=lambda _part, _label, number: f"cell{number:04d}.png",
)
