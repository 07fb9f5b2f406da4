"""Drawing functions of the look-alike sets: noise, soft ellipses and strokes as arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Floats = npt.NDArray[np.float32]
Shape = tuple[int, int]
Point = tuple[float, float]
"""x and y, 0..1 from the upper left corner."""

_FINER = 2
"""Factor by which strokes are drawn larger, then averaged, for smooth edges."""
_COARSER = 4
"""Factor by which a scene's spots are drawn smaller; its grain has full resolution."""


def make_noise(shape: Shape, cells: float, rng: np.random.Generator) -> Floats:
    """Return noise float32[H, W], mean 0, deviation about 1/2; spots have the width of the longer side / `cells`."""
    height, width = shape
    longer = max(shape)
    coarse = rng.normal(0, 0.6, (max(2, round(height * cells / longer)), max(2, round(width * cells / longer))))
    return scale_up(coarse.astype(np.float32), shape)


def scale_up(values: Floats, shape: Shape) -> Floats:
    """Return values enlarged to float32[H, W] by interpolation."""
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.array(image.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def draw_ellipse(shape: Shape, centre: Point, radii: Point, angle: float = 0.0, soft: float = 0.1) -> Floats:
    """Return float32[H, W]: 1 inside, 0 outside, with a transition of `soft` times the radius.

    radii: Along x and y before rotation, as shares of the shorter side.
    angle: Radians, clockwise.
    """
    mask = np.zeros(shape, dtype=np.float32)
    reach = max(radii) * (1 + soft / 2)
    rows, columns = _span(centre[1], reach, shape[0], shape), _span(centre[0], reach, shape[1], shape)
    y = (np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + 0.5 - centre[1] * shape[0]) / min(shape)
    x = (np.arange(columns.start, columns.stop, dtype=np.float32)[None] + 0.5 - centre[0] * shape[1]) / min(shape)
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    distance = np.hypot((x * cos + y * sin) / float(radii[0]), (y * cos - x * sin) / float(radii[1]))
    mask[rows, columns] = np.clip((1 - distance) / soft + 0.5, 0, 1)
    return mask


def draw_strokes(shape: Shape, lines: Sequence[Sequence[Point]], width: float) -> Floats:
    """Return float32[H, W]: 1 on the lines, of width `width` times the shorter side, with round corners and ends."""
    canvas, pen = _open_canvas(shape)
    thick = max(1, round(width * min(canvas.size)))
    for line in lines:
        points = _place(line, canvas)
        pen.line(points, fill=255, width=thick, joint="curve")
        for x, y in (points[0], points[-1]):
            pen.ellipse([x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2], fill=255)
    return _average(canvas, shape)


def draw_polygon(shape: Shape, corners: Sequence[Point]) -> Floats:
    """Return float32[H, W]: 1 inside."""
    canvas, pen = _open_canvas(shape)
    pen.polygon(_place(corners, canvas), fill=255)
    return _average(canvas, shape)


def blend(pixels: Floats, mask: Floats, value: float | Sequence[float]) -> Floats:
    """Return pixels[H, W] or [H, W, 3] blended with `value`, 0..255, by the mask."""
    cover = mask if pixels.ndim == 2 else mask[..., None]
    return (pixels * (1 - cover) + np.asarray(value, dtype=np.float32) * cover).astype(np.float32)


def make_scene(shape: Shape, rng: np.random.Generator) -> Floats:
    """Return float32[H, W, 3], 0..255: coarse and fine spots around a random colour, like grass, bark or sand."""
    small = (-(-shape[0] // _COARSER), -(-shape[1] // _COARSER))
    layers = np.broadcast_to(rng.uniform(70, 185, (3, 1, 1)), (3, *small)).astype(np.float32)
    for cells, strength in ((3, 35), (11, 22), (60, 14)):
        shared = make_noise(small, cells, rng)
        layers += strength * np.stack([shared + 0.4 * make_noise(small, cells, rng) for _ in range(3)])
    soft = np.stack([scale_up(layer, shape) for layer in layers], axis=2)
    grain = rng.standard_normal(shape, dtype=np.float32)
    pixels: Floats = soft + 5 * grain[..., None]
    return pixels


def make_image(pixels: Floats) -> Image.Image:
    """Return a gray or RGB picture of values on the scale 0..255."""
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _span(centre: float, reach: float, length: int, shape: Shape) -> slice:
    """Return the range of rows or columns, of `length`, within `reach` shorter sides of a centre."""
    middle, half = centre * length, reach * min(shape) + 1
    return slice(max(0, int(middle - half)), max(0, min(length, int(middle + half) + 1)))


def _open_canvas(shape: Shape) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    canvas = Image.new("L", (shape[1] * _FINER, shape[0] * _FINER))
    return canvas, ImageDraw.Draw(canvas)


def _place(points: Sequence[Point], canvas: Image.Image) -> list[Point]:
    return [(x * canvas.width, y * canvas.height) for x, y in points]


def _average(canvas: Image.Image, shape: Shape) -> Floats:
    averaged: Floats = np.asarray(canvas.resize((shape[1], shape[0]), Image.Resampling.BOX), dtype=np.float32)
    return averaged / np.float32(255)
