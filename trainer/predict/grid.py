"""Pages of pictures titled with their predictions, for visual inspection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shards.errors import ShardError
from shards.pictures.decode import decode
from shards.pictures.shrink import shrink_pixels
from trainer.contract.bundle import BundlePage
from trainer.evaluate.figures.figures import new_figure, save_figure, shorten_name
from trainer.evaluate.figures.fonts import apply_fonts, letter_texts
from trainer.predict.answer import Row
from trainer.unpacked.ahead import cut_batches
from trainer.unpacked.asked import Asked, Place

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 4
"""Rows and columns of a page."""
PER_PAGE = SIDE * SIDE
_PIXELS = 320
"""Maximum longer side of a picture on a page, pixels."""
_CELL, _TOP, _GAP = 2.0, 0.5, 0.12
"""Inches: side of a picture, room for its title, between pictures."""
_INK, _RIGHT, _WRONG = "#1f2933", "#1b7f4b", "#b3261e"


@dataclass(frozen=True)
class Cell:
    """A picture uint8[H, W, 3], its title, and the title's colour."""

    pixels: npt.NDArray[np.uint8]
    title: str
    colour: str


def write_pages(folder: Path, page: BundlePage, asked: Asked, rows: Sequence[tuple[int, Row]]) -> int:
    """Write pages `page-001.png`, ... and return their number; pages of an earlier command are removed.

    Args:
        folder: Output folder.
        page: Metadata of the bundle.
        asked: The sources of the pictures, which are read again.
        rows: Answers with the position of each in `asked`, ascending.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("page-[0-9][0-9][0-9].png"):
        old.unlink()
    number = 0
    for number, cells in enumerate(cut_batches(_make_cells(page, asked, rows), PER_PAGE), start=1):
        families, spell = letter_texts([cell.title for cell in cells])
        with apply_fonts(families):
            spelt = [Cell(cell.pixels, spell(cell.title), cell.colour) for cell in cells]
            save_figure(_draw(spelt), folder / f"page-{number:03}.png")
    return number


def _make_cells(page: BundlePage, asked: Asked, rows: Sequence[tuple[int, Row]]) -> Iterator[Cell]:
    for (place, data), row in zip(_read(asked, [position for position, _ in rows]), (r for _, r in rows), strict=True):
        pixels = shrink_pixels(decode(data, page.preprocess.decode), _PIXELS)
        title, colour = make_title(page, row, find_truth(page, place))
        yield Cell(pixels, title, colour)


def _read(asked: Asked, positions: Sequence[int]) -> Iterator[tuple[Place, bytes]]:
    """Yield the pictures at some positions with their bytes; raises ShardError if one has changed meanwhile."""
    for number, run in groupby(_pick(asked, positions), lambda place: place.part):
        for picture, data in asked.parts[number].read_in_order(place.picture for place in run):
            yield Place(number, picture), data


def _pick(asked: Asked, positions: Sequence[int]) -> Iterator[Place]:
    wanted = iter(positions)
    position = next(wanted, None)
    for number, place in enumerate(asked.list()):
        if number == position:
            yield place
            position = next(wanted, None)
        if position is None:
            return
    raise ShardError("pictures of the first pages are missing; answers are written, run again for the pages")


def find_truth(page: BundlePage, place: Place) -> tuple[str, ...] | None:
    """Return a picture's true labels: from the dataset, or its folder if that is a class name; else None."""
    if place.picture.labels:
        return place.picture.labels
    folder = place.picture.path.rpartition("/")[0].rpartition("/")[2]
    return (folder,) if folder in page.classes else None


def make_title(page: BundlePage, row: Row, truth: tuple[str, ...] | None) -> tuple[str, str]:
    """Return a picture's title and its colour: prediction, probability and, if known, the true label."""
    assert row.answer is not None
    shown = dict(zip(page.classes, page.display_names, strict=True))
    labels = row.answer["labels"]
    title = f"{_name(shown, labels)} {row.answer['probability']:.2f}"
    if truth is None:
        return title, _INK
    return f"{title}\ntrue: {_name(shown, truth)}", _RIGHT if set(truth) == set(labels) else _WRONG


def _name(shown: dict[str, str], labels: Sequence[str]) -> str:
    return ", ".join(shorten_name(shown.get(label, label)) for label in labels) or "none"


def _draw(cells: Sequence[Cell]) -> Figure:
    rows = -(-len(cells) // SIDE)
    width, height = SIDE * (_CELL + _GAP) + _GAP, rows * (_CELL + _TOP) + _GAP
    figure = new_figure(width, height, layout=None)
    for number, cell in enumerate(cells):
        left = _GAP + number % SIDE * (_CELL + _GAP)
        bottom = height - (number // SIDE + 1) * (_CELL + _TOP)
        axes = figure.add_axes((left / width, bottom / height, _CELL / width, _CELL / height))
        axes.imshow(cell.pixels)
        axes.set_axis_off()
        axes.set_title(cell.title, fontsize=9, color=cell.colour, pad=3, linespacing=1.15)
    return figure
