"""An evaluation in words: what each row says, and the result in a line."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.evaluate.rows import Rows

SEPARATOR = ";"
"""Between the labels of one picture, as in the lists that are packed."""
_HEADLINES = {"map": "mAP", "macro_f1": "macro F1", "subset_accuracy": "all labels right"}
"""Where pictures have several labels, and what each is called."""


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
    """Return the numbers by which a result is told first, the 95 % interval of each that has one behind it.

    >>> describe_headline({"subset_accuracy": 0.5, "map": 0.75, "intervals": {"map": [0.7, 0.8]}})
    'mAP 0.7500 [0.7000, 0.8000], all labels right 0.5000'
    """
    told = {"accuracy": "accuracy"} if "accuracy" in metrics else _HEADLINES
    shown = [f"{told[name]} {metrics[name]:.4f}{_bound(metrics, name)}" for name in told if name in metrics]
    return ", ".join(shown)


def _bound(metrics: dict[str, Any], name: str) -> str:
    bounds = metrics.get("intervals", {}).get(name)
    return f" [{bounds[0]:.4f}, {bounds[1]:.4f}]" if bounds else ""
