"""Figures as PNG files: confusion matrices and training curves. matplotlib is imported where it is used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from shards.files.atomic import write_atomically
from trainer.contract.metrics import find_right, list_metrics
from trainer.evaluate.figures.fonts import Lettering

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 110
_WRITTEN = 12
"""Maximum number of classes for numbers in the cells of a confusion matrix."""
_TICKS = 40
"""Maximum number of names along an axis."""
_LETTERS = 18
"""Maximum length of a name."""


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """Return an empty figure; sizes in inches; layout: matplotlib's layout engine, None for manual placement."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG atomically."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with write_atomically(path) as file:
        figure.savefig(file, dpi=_DPI, format="png")


def shorten_name(name: str) -> str:
    """Shorten a name to at most 18 characters.

    >>> shorten_name("a very long name of a class")
    'a very long name …'
    """
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"


def draw_confusion(
    path: Path, counts: npt.NDArray[np.int64], lettering: Lettering, *, normalised: bool = False
) -> None:
    """Draw a confusion matrix int64[K, K], rows true and columns predicted.

    Cells are shaded by the count, or by the share of the true class if normalised. With many classes, cells have no
    numbers and only some classes are named.
    """
    from matplotlib.colors import Normalize, PowerNorm

    number = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # Square roots keep the cells of rare classes visible beside those of frequent ones.
    scale = Normalize(0, 1) if normalised else PowerNorm(0.5, 0, max(1, int(counts.max())))
    side = min(10.0, 2.6 + 0.62 * number)
    with lettering.applied():
        figure = new_figure(side + 1, side)
        axes = figure.add_subplot()
        image = axes.imshow(shares if normalised else counts, cmap="Blues", norm=scale)
        if number <= _WRITTEN:
            _write_cells(axes, counts, shares, normalised, scale)
        _name_ticks(axes, [shorten_name(name) for name in lettering.names])
        axes.set(xlabel="predicted", ylabel="true")
        figure.colorbar(image, label="share of the true class" if normalised else "samples", shrink=0.8)
        save_figure(figure, path)


def _write_cells(
    axes: Any, counts: npt.NDArray[np.int64], shares: npt.NDArray[np.float64], normalised: bool, scale: Any
) -> None:
    for (row, column), count in np.ndenumerate(counts):
        shade = scale(shares[row, column] if normalised else count)
        text = f"{shares[row, column]:.2f}" if normalised else f"{count:,}"
        axes.text(column, row, text, ha="center", va="center", color="white" if shade > 0.6 else "black", fontsize=9)


def _name_ticks(axes: Any, names: list[str]) -> None:
    """Write the names along both axes, only every n-th if there are too many."""
    shown = range(0, len(names), -(-len(names) // _TICKS))
    size = 9 if len(names) <= _WRITTEN else 7
    slanted = len(names) > 4 or max(map(len, names)) > 10
    style = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(shown, [names[number] for number in shown], fontsize=size, **style)
    axes.set_yticks(shown, [names[number] for number in shown], fontsize=size)


def draw_training(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draw the training curves of a run from the rows of metrics.jsonl."""
    figure = new_figure(10, 8.4)
    loss, score, rate, feed, wait, time = figure.subplots(3, 2).flat
    epochs = [row["epoch"] for row in rows]

    def plot(axes: Any, name: str, label: str) -> None:
        axes.plot(epochs, [row[name] for row in rows], marker="o", markersize=3, label=label)

    plot(loss, "train/loss", "train")
    plot(loss, "val/log_loss", "validation")
    task = find_right([name.removeprefix("val/") for name in rows[0]]).task
    for metric in list_metrics(task, "stop")[:2]:
        plot(score, f"val/{metric.key}", metric.name)
    plot(rate, "train/lr", "end of epoch")
    plot(feed, "feed/img_s", "training")
    plot(wait, "feed/wait_frac", "training")
    plot(time, "train/time_s", "training")
    plot(time, "val/time_s", "validation")
    loss.set(title="loss (nats)")
    score.set(title="validation")
    rate.set(title="learning rate")
    feed.set(title="pictures a second", ylim=(0, None))
    wait.set(title="share of the time in which steps wait for batches", xlabel="epoch", ylim=(0, 1))
    time.set(title="seconds an epoch", xlabel="epoch", ylim=(0, None))
    for axes in (loss, score, time):
        axes.legend(fontsize=8)
    for axes in (loss, score, rate, feed, wait, time):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    save_figure(figure, path)
