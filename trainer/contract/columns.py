"""The columns of tables of answers, and how their values are written; it imports no torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

PREFIX: Final = "probability_"
"""Beginning of the columns of the classes' probabilities."""
_DECIDED: Final = {"decision": "fitted", "abstain": "fitted", "ood_score": "ood", "set": "conformal"}
"""Columns that only a fitted decision gives -> the field of the decision that they need."""


def list_columns(classes: Iterable[str], decision: Mapping[str, Any]) -> list[str]:
    """Return the names of all columns in order.

    Args:
        classes: Names of the classes.
        decision: The fields of the bundle's decision that are set.

    >>> list_columns(["cat", "dog"], {"rule": "argmax"})
    ['path', 'label', 'probability', 'probability_cat', 'probability_dog']
    """
    decided = [name for name, field in _DECIDED.items() if decision.get(field) is not None]
    return ["path", "label", "probability", *decided, *(PREFIX + name for name in classes)]


def read_value(name: str, path: str, answer: Mapping[str, Any]) -> Any:
    """Return the value of a column for one picture: text, number or boolean; lists are joined by ;.

    Args:
        name: One of `list_columns`, or image_id, which is the file's name without its ending.
        path: The picture's name.
        answer: The fields of the answer.
    """
    if name == "path":
        return path
    if name == "image_id":
        return PurePosixPath(path).stem
    if name == "label":
        return ";".join(answer["labels"])
    if name == "decision" and name not in answer:  # with several labels it is all predicted labels
        return ";".join(answer["labels"])
    if name == "set":
        return ";".join(answer["set"])
    if name.startswith(PREFIX):
        return answer["probabilities"][name.removeprefix(PREFIX)]
    return answer[name]


def format_value(name: str, value: Any) -> str:
    """Return the value of a column as text.

    >>> format_value("abstain", True), format_value("probability", 0.25), format_value("ood_score", 12345.678)
    ('true', '0.250000', '12345.7')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}" if name == "ood_score" else f"{value:.6f}"
    return str(value)


def join_row(values: Sequence[str]) -> str:
    """Return a line of CSV with its end.

    >>> join_row(["a,b", "c"])
    '"a,b",c\\n'
    """
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()
