"""Figures for several labels per picture, as PNG files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.evaluate.figures.figures import new_figure, save_figure, shorten_name
from trainer.evaluate.figures.fonts import Lettering

_MOST_TABLES, _COLUMNS = 36, 6


def draw_confusions(path: Path, tables: npt.NDArray[np.int64], lettering: Lettering) -> None:
    """Draw a table int64[2, 2] for each class: rows are the truth, columns the prediction, shaded by row shares.

    With more than 36 classes, the most frequent ones are drawn.
    """
    shown = _choose(tables[:, 1].sum(axis=1), _MOST_TABLES)
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    with lettering.applied():
        figure = new_figure(2.1 * columns + 0.3, 2.3 * rows)
        for place, number in enumerate(shown):
            axes = figure.add_subplot(rows, columns, place + 1)
            _draw_table(axes, tables[number])
            axes.set_title(shorten_name(lettering.names[number]), fontsize=10)
        save_figure(figure, path)


def _draw_table(axes: Any, counts: npt.NDArray[np.int64]) -> None:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.6 else "black"
        text = f"{count:,}\n{shares[row, column]:.0%}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks([0, 1], ["no", "yes"])
    axes.set_yticks([0, 1], ["no", "yes"])
    axes.set(xlabel="predicted", ylabel="true")


def _choose(counts: npt.NDArray[np.int64], most: int) -> list[int]:
    """Return the positions of the largest counts, in ascending order."""
    chosen: list[int] = sorted(np.argsort(-counts, kind="stable")[:most].tolist())
    return chosen
