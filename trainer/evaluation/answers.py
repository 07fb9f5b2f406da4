"""An evaluation in words: what each row says, and the result in a line."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.evaluation.rows import Rows

SEPARATOR = ";"
"""Between the labels of one picture, as in the lists that are packed."""


def name_answers(rows: Rows, classes: list[str]) -> tuple[list[str], list[str]]:
    """Return for each row its labels and those that the model gives; several are joined, none are empty."""
    return name_labels(rows.labels, classes), name_labels(rows.predicted, classes)


def name_labels(labels: npt.NDArray[np.int64], classes: list[str]) -> list[str]:
    """Return the class name of each of int64[N], or the joined names of each row of int64[N, K] of 0 and 1."""
    if labels.ndim == 1:
        return [classes[label] for label in labels.tolist()]
    return [SEPARATOR.join(classes[k] for k in np.flatnonzero(row)) for row in labels]


def read_labels(names: list[str], classes: list[str]) -> npt.NDArray[np.int64]:
    """Return int64[N, K] of 0 and 1 of joined names, as `name_labels` joins them.

    Raises:
        ValueError: A name that is no class.

    >>> read_labels(["a;c", ""], ["a", "b", "c"]).tolist()
    [[1, 0, 1], [0, 0, 0]]
    """
    flags = np.zeros((len(names), len(classes)), dtype=np.int64)
    for row, joined in enumerate(names):
        flags[row, [classes.index(name) for name in filter(None, joined.split(SEPARATOR))]] = 1
    return flags


def describe_headline(metrics: dict[str, Any]) -> str:
    """Return the numbers by which a result is told first.

    >>> describe_headline({"subset_accuracy": 0.5, "map": 0.75, "macro_f1": 0.6})
    'mAP 0.7500, macro F1 0.6000, all labels right 0.5000'
    """
    if "accuracy" in metrics:
        return f"accuracy {metrics['accuracy']:.4f}"
    names = {"map": "mAP", "macro_f1": "macro F1", "subset_accuracy": "all labels right"}
    return ", ".join(f"{shown} {metrics[name]:.4f}" for name, shown in names.items() if name in metrics)
