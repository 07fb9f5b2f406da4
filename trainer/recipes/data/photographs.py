"""Colour look-alikes: posters with a logo, insects, and objects of ImageNet's kind."""

from __future__ import annotations

import numpy as np
from PIL import Image

from trainer.recipes.data.canvas import (
    Floats,
    Point,
    Shape,
    blend,
    draw_ellipse,
    draw_polygon,
    draw_strokes,
    make_image,
    make_noise,
    make_scene,
)
from trainer.recipes.data.glyphs import GLYPHS, draw_glyph
from trainer.recipes.data.layout import LookAlike, Part

_LOGOS = {"acme": "disc", "globex": "cross", "initech": "bars"}
_OBJECTS = {
    "n01440764": "disc", "n02102040": "cross", "n02979186": "ring", "n03000684": "bars", "n03028079": "triangle",
    "n03394916": "star", "n03417042": "chevron", "n03425413": "square", "n03445777": "moon", "n03888257": "grid",
}  # fmt: skip
"""WordNet ids of ten classes of ImageNet, each drawn as a different shape."""

_RED_GREEN = np.array([1, -1, 0], dtype=np.float32) / np.sqrt(np.float32(2))
_YELLOW_BLUE = np.array([1, 1, -2], dtype=np.float32) / np.sqrt(np.float32(6))
"""Colour directions that do not change brightness."""


def draw_poster(label: str, side: int, rng: np.random.Generator) -> Image.Image:
    """Return a poster, wide or tall, with random shapes; its class is the logo in the white banner at one short end.

    The longer side is 1.65 to 1.95 times the shorter one. The banner is narrow enough to lie outside the centre square.
    """
    shorter = round(side / rng.uniform(1.65, 1.95))
    tall = rng.random() < 0.5
    shape = (side, shorter) if tall else (shorter, side)
    poster = make_scene(shape, rng)
    for _ in range(rng.integers(3, 7)):
        centre = (rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8))
        radii = (rng.uniform(0.05, 0.25), rng.uniform(0.05, 0.25))
        poster = blend(poster, draw_ellipse(shape, centre, radii, rng.uniform(0, 3), soft=0.05), _draw_colour(rng))
    # The banner ends at 0.16 of the longer side, and the centre square begins at 0.197 at least.
    near, far = (0.0, 0.16) if rng.random() < 0.5 else (0.84, 1.0)
    corners = [(0.0, near), (1.0, near), (1.0, far), (0.0, far)]
    poster = blend(poster, draw_polygon(shape, [_turn(corner, tall) for corner in corners]), 245.0)
    ink = _draw_colour(rng, dark=True)
    for across in (0.2, 0.5, 0.8):
        middle = _turn((across + rng.uniform(-0.03, 0.03), (near + far) / 2), tall)
        poster = blend(poster, draw_glyph(_LOGOS[label], shape, middle, 0.12), ink)
    return make_image(poster)


def _turn(point: Point, tall: bool) -> Point:
    """Convert a point from coordinates across and along the longer side to x and y."""
    return point if tall else (point[1], point[0])


def draw_insect(label: str, side: int, rng: np.random.Generator) -> Image.Image:
    """Return an ant or a bee at a random place and angle on grass, bark or sand.

    Both are equally often dark or light; an ant has a narrow waist and long legs, a bee stripes and wings.
    """
    shape = (round(side * 0.75), side)
    scene = make_scene(shape, rng)
    body = _Body(shape, (rng.uniform(0.35, 0.65), rng.uniform(0.35, 0.65)), rng.uniform(0.22, 0.32), rng)
    colour = (rng.uniform(10, 60) + rng.uniform(-8, 8, 3)).tolist()
    if label == "bees":
        return make_image(_paint_bee(scene, body, colour))
    return make_image(_paint_ant(scene, body, colour))


def draw_object(label: str, side: int, rng: np.random.Generator) -> Image.Image:
    """Return an object of the class's shape, with random colour, size and place, on a random background.

    The background is speckled in two opposite hues of the class, so that the texture of any crop shows the class, as in
    photographs (Geirhos et al. 2019); the mean colour does not.
    """
    shape = (round(side * 0.75), side)
    centre, radius = (rng.uniform(0.35, 0.65), rng.uniform(0.35, 0.65)), rng.uniform(0.2, 0.35)
    mask = draw_glyph(_OBJECTS[label], shape, centre, radius, rng.uniform(-0.3, 0.3))
    turn = np.pi * list(_OBJECTS).index(label) / len(_OBJECTS)
    hues = np.cos(turn) * _RED_GREEN + np.sin(turn) * _YELLOW_BLUE
    scene = make_scene(shape, rng) + 80 * make_noise(shape, 23, rng)[..., None] * hues
    least, most = (175, 250) if scene.mean() < 128 else (5, 80)
    return make_image(blend(scene, mask, rng.uniform(least, most, 3).tolist()))


class _Body:
    """The position of an insect: its own axes, x towards the head, in units of half its length."""

    def __init__(self, shape: Shape, centre: Point, length: float, rng: np.random.Generator) -> None:
        self.shape, self._centre, self._length = shape, centre, length
        self._angle = rng.uniform(0, 2 * np.pi)

    def find(self, x: float, y: float) -> Point:
        """Convert a place on the body to shares of the picture's sides."""
        cos, sin, unit = np.cos(self._angle), np.sin(self._angle), min(self.shape) * self._length
        along, down = unit * (x * cos - y * sin), unit * (x * sin + y * cos)
        return self._centre[0] + along / self.shape[1], self._centre[1] + down / self.shape[0]

    def draw_oval(self, x: float, y: float, radii: Point, turn: float = 0.0, soft: float = 0.15) -> Floats:
        scaled = (radii[0] * self._length, radii[1] * self._length)
        return draw_ellipse(self.shape, self.find(x, y), scaled, self._angle + turn, soft)

    def draw_lines(self, lines: list[list[Point]], width: float) -> Floats:
        return draw_strokes(self.shape, [[self.find(*point) for point in line] for line in lines], width * self._length)


def _paint_ant(scene: Floats, body: _Body, colour: list[float]) -> Floats:
    legs = [[(0.1, 0.0), (0.1 + lean / 2, side * 0.45), (0.1 + lean, side * 0.95)]
            for lean in (-0.6, 0.05, 0.7) for side in (-1, 1)]  # fmt: skip
    legs += [[(0.75, 0.0), (1.05, side * 0.25), (1.25, side * 0.5)] for side in (-1, 1)]
    scene = blend(scene, body.draw_lines(legs, 0.06), colour)
    for x, radii in ((-0.65, (0.38, 0.26)), (0.1, (0.3, 0.13)), (0.7, (0.2, 0.19))):
        scene = blend(scene, body.draw_oval(x, 0.0, radii), colour)
    return scene


def _paint_bee(scene: Floats, body: _Body, colour: list[float]) -> Floats:
    for side in (-1, 1):
        wing = body.draw_oval(-0.1, side * 0.6, (0.62, 0.26), side * 1.0)
        scene = blend(scene, 0.75 * wing, 225.0)
    scene = blend(scene, body.draw_oval(0.0, 0.0, (0.9, 0.48)), colour)
    trunk = body.draw_oval(0.0, 0.0, (0.86, 0.44))
    stripes = body.draw_lines([[(x, -0.5), (x, 0.5)] for x in (-0.6, -0.25, 0.1)], 0.16)
    return blend(scene, trunk * stripes, (225.0, 175.0, 45.0))


def _draw_colour(rng: np.random.Generator, dark: bool = False) -> list[float]:
    colour: list[float] = rng.uniform(0, 90 if dark else 255, 3).tolist()
    return colour


def _name_object(part: str, label: str, number: int) -> str:
    return f"{label}_{number}.JPEG" if part == "train" else f"ILSVRC2012_val_{number:08d}.JPEG"


POSTERS = LookAlike(
    classes=dict.fromkeys(_LOGOS, 1.0),
    parts=(Part("", 1.0),),
    samples=1500,
    side=700,
    draw=lambda label, side, rng: draw_poster(label, round(side * rng.uniform(0.8, 1.2)), rng),
    name_file=lambda _part, label, number: f"{label}-{number:05d}.jpg",
)
ANTS_BEES = LookAlike(
    classes={"ants": 0.5, "bees": 0.5},
    parts=(Part("train", 0.61), Part("val", 0.39)),
    samples=397,
    side=500,
    draw=draw_insect,
    name_file=lambda _part, _label, number: f"{10_000_000 + 7919 * number}_{number:010x}.jpg",
)
IMAGENET = LookAlike(
    classes=dict.fromkeys(_OBJECTS, 1.0),
    parts=(Part("train", 0.9), Part("val", 0.1)),
    samples=4000,
    side=500,
    draw=draw_object,
    name_file=_name_object,
)
assert set(_OBJECTS.values()) == set(GLYPHS)
