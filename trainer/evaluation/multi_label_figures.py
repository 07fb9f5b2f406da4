"""Figures of pictures of any number of labels, as PNG files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn import metrics as sk

from shards.files import write_atomically

_DPI = 110
_MOST_TABLES, _COLUMNS = 36, 6
_MOST_CURVES = 20


def draw_confusions(path: Path, tables: npt.NDArray[np.int64], names: list[str]) -> None:
    """Draw a table int64[2, 2] for each class: rows is it there, columns does the model say so; shaded by row shares.

    Of more than 36 classes those that most samples have are drawn.
    """
    shown = _choose(tables[:, 1].sum(axis=1), _MOST_TABLES)
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(2.1 * columns + 0.3, 2.3 * rows), layout="constrained")
    for place, number in enumerate(shown):
        axes = figure.add_subplot(rows, columns, place + 1)
        counts = tables[number]
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.6 else "black"
            text = f"{count:,}\n{shares[row, column]:.0%}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
        axes.set_xticks([0, 1], ["no", "yes"])
        axes.set_yticks([0, 1], ["no", "yes"])
        axes.set_title(names[number], fontsize=10)
        axes.set(xlabel="predicted", ylabel="true")
    _save(figure, path)


def draw_label_scores(
    path: Path, labels: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], names: list[str]
) -> None:
    """Draw ROC and precision-recall of each class; of more than 20 those that most samples have.

    labels: int64[N, K] of 0 and 1. scores: float32[N, K], in any monotone scale.
    """
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    roc, pr = figure.subplots(1, 2)
    support = labels.sum(axis=0)
    mixed = (support > 0) & (support < len(labels))
    for number in _choose(np.where(mixed, support, 0), _MOST_CURVES):
        if not mixed[number]:
            continue
        truth, score = labels[:, number], scores[:, number]
        fpr, tpr, _ = sk.roc_curve(truth, score)
        roc.plot(fpr, tpr, label=f"{names[number]}  AUROC {sk.auc(fpr, tpr):.3f}")
        precision, recall, _ = sk.precision_recall_curve(truth, score)
        pr.plot(recall, precision, label=f"{names[number]}  AP {sk.average_precision_score(truth, score):.3f}")
    roc.plot([0, 1], [0, 1], color="grey", linestyle=":")
    roc.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
    pr.set(xlabel="recall", ylabel="precision", title="precision and recall", ylim=(0, 1.02))
    for axes in (roc, pr):
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="lower right" if axes is roc else "lower left", fontsize=8)
    _save(figure, path)


def _choose(counts: npt.NDArray[np.int64], most: int) -> list[int]:
    """Return the places of the largest counts, in ascending order."""
    chosen: list[int] = sorted(np.argsort(-counts, kind="stable")[:most].tolist())
    return chosen


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with write_atomically(path) as file:
        figure.savefig(file, dpi=_DPI, format="png")
