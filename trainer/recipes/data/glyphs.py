"""Simple shapes that represent a logo or an object."""

from __future__ import annotations

import numpy as np

from trainer.recipes.data.canvas import Floats, Point, Shape, draw_ellipse, draw_polygon, draw_strokes

GLYPHS = ("disc", "cross", "ring", "bars", "triangle", "star", "chevron", "square", "moon", "grid")


def draw_glyph(name: str, shape: Shape, centre: Point, radius: float, angle: float = 0.0) -> Floats:
    """Return float32[H, W]: 1 on the shape `name`, one of GLYPHS.

    radius: As a share of the shorter side.
    """
    if name == "disc":
        return draw_ellipse(shape, centre, (radius, radius), soft=0.05)
    if name == "ring":
        return draw_ellipse(shape, centre, (radius, radius), soft=0.05) - draw_ellipse(
            shape, centre, (0.55 * radius, 0.55 * radius), soft=0.05
        )
    if name == "moon":
        beside = _place([(0.45, -0.2)], shape, centre, radius, angle)[0]
        whole = draw_ellipse(shape, centre, (radius, radius), soft=0.05)
        return whole * (1 - draw_ellipse(shape, beside, (0.8 * radius, 0.8 * radius), soft=0.05))
    if name in _CORNERS:
        return draw_polygon(shape, _place(_CORNERS[name], shape, centre, radius, angle))
    lines = [_place(line, shape, centre, radius, angle) for line in _LINES[name]]
    return draw_strokes(shape, lines, radius * _THICKNESS[name])


def _place(points: list[Point], shape: Shape, centre: Point, radius: float, angle: float) -> list[Point]:
    """Convert points from units of the radius around the centre to shares of the picture's sides."""
    unit = min(shape)
    x_unit, y_unit = radius * unit / shape[1], radius * unit / shape[0]
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    return [(centre[0] + x_unit * (x * cos - y * sin), centre[1] + y_unit * (x * sin + y * cos)) for x, y in points]


def _make_star() -> list[Point]:
    turns = np.arange(10) * np.pi / 5 - np.pi / 2
    lengths = np.where(np.arange(10) % 2, 0.42, 1.0)
    return [(float(r * np.cos(t)), float(r * np.sin(t))) for r, t in zip(lengths, turns, strict=True)]


_CORNERS: dict[str, list[Point]] = {
    "triangle": [(0.0, -1.0), (0.95, 0.8), (-0.95, 0.8)],
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "star": _make_star(),
}
_LINES: dict[str, list[list[Point]]] = {
    "cross": [[(-0.7, -0.7), (0.7, 0.7)], [(-0.7, 0.7), (0.7, -0.7)]],
    "bars": [[(-0.85, y), (0.85, y)] for y in (-0.75, 0.0, 0.75)],
    "chevron": [[(-0.8, 0.5), (0.0, -0.5), (0.8, 0.5)]],
    "grid": [[(-0.9, y), (0.9, y)] for y in (-0.4, 0.4)] + [[(x, -0.9), (x, 0.9)] for x in (-0.4, 0.4)],
}
_THICKNESS = {"cross": 0.5, "bars": 0.35, "chevron": 0.5, "grid": 0.22}
