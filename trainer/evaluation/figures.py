"""Figures as PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn import metrics as sk

from shards.files import write_atomically

_DPI = 110


def draw_confusion(path: Path, counts: npt.NDArray[np.int64], names: list[str]) -> None:
    """Draw a confusion matrix int64[K, K], rows true and columns predicted, shaded by the share of its row."""
    side = max(3.5, 1.0 + 0.7 * len(names))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.6 else "black"
        text = f"{count:,}\n{shares[row, column]:.0%}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(len(names)), names, rotation=30 if len(names) > 4 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true")
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    _save(figure, path)


def draw_scores(
    path: Path, labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64], names: list[str]
) -> None:
    """Draw ROC and precision-recall of each class against the rest."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    roc, pr = figure.subplots(1, 2)
    shown = [1] if len(names) == 2 else range(len(names))
    for number in shown:
        truth = labels == number
        if 0 < truth.sum() < len(truth):
            fpr, tpr, _ = sk.roc_curve(truth, probabilities[:, number])
            roc.plot(fpr, tpr, label=f"{names[number]}  AUROC {sk.auc(fpr, tpr):.3f}")
            precision, recall, _ = sk.precision_recall_curve(truth, probabilities[:, number])
            area = sk.average_precision_score(truth, probabilities[:, number])
            pr.plot(recall, precision, label=f"{names[number]}  AP {area:.3f}")
    roc.plot([0, 1], [0, 1], color="grey", linestyle=":")
    roc.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
    pr.set(xlabel="recall", ylabel="precision", title="precision and recall", ylim=(0, 1.02))
    for axes in (roc, pr):
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="lower right" if axes is roc else "lower left", fontsize=8)
    _save(figure, path)


def draw_training(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draw the course of a run from the rows of metrics.jsonl."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    loss, score, rate, feed = figure.subplots(2, 2).flat
    epochs = [row["epoch"] for row in rows]

    def plot(axes: Any, name: str, label: str) -> None:
        axes.plot(epochs, [row[name] for row in rows], marker="o", markersize=3, label=label)

    plot(loss, "train/loss", "train")
    plot(loss, "val/log_loss", "validation")
    several = {"map": "mAP", "macro_f1": "macro F1"}
    shown = several if "val/map" in rows[0] else {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}
    for name, label in shown.items():
        plot(score, f"val/{name}", label)
    plot(rate, "train/lr", "end of epoch")
    plot(feed, "feed/img_s", "training")
    loss.set(title="loss (nats)")
    score.set(title="validation")
    rate.set(title="learning rate", xlabel="epoch")
    feed.set(title="pictures/s", xlabel="epoch", ylim=(0, None))
    for axes in (loss, score):
        axes.legend(fontsize=8)
    for axes in (loss, score, rate, feed):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with write_atomically(path) as file:
        figure.savefig(file, dpi=_DPI, format="png")
