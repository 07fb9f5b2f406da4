"""The positive class of an evaluation: its name, who named it, and how many of its pictures were found, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np

from shards.dataset.dataset import Dataset
from shards.dataset.positive import describe_default
from trainer.contract.task import Task
from trainer.recipes.recipe import Recipe

SaidBy = Literal["--positive", "recipe", "bundle", "dataset", "rows", "default"]
_WHO: Final = {
    "--positive": "set by --positive",
    "recipe": "set by the recipe",
    "bundle": "stored with the bundle",
    "dataset": "stored with the dataset",
    "rows": "from the earlier evaluation of these rows",
}


@dataclass(frozen=True)
class Positive:
    """The positive class. said_by: who named it; default: unset, the second of two."""

    name: str
    said_by: SaidBy


def take_first(**said: str | None) -> Positive | None:
    """Return the first class given, with who named it.

    >>> take_first(recipe=None, dataset="DEFECTIVE")
    Positive(name='DEFECTIVE', said_by='dataset')
    """
    return next((Positive(name, by) for by, name in said.items() if name is not None), None)  # type: ignore[arg-type]


def take_default(task: Task, classes: list[str]) -> Positive | None:
    """Return the default positive class; None if there is none."""
    name = task.find_positive(classes)
    return None if name is None else Positive(name, "default")


def find_positive(recipe: Recipe, dataset: Dataset) -> Positive | None:
    """Return the positive class from the recipe, else the dataset; None if neither sets one."""
    return take_first(recipe=recipe.positive, dataset=dataset.manifest.positive)


def read_positive(metrics: Mapping[str, Any]) -> Positive | None:
    """Return the positive class of metrics.json; None if there is none.

    Evaluations of earlier versions only have it with the rule, and runs could not set it.
    """
    name = metrics.get("positive") or metrics.get("decision", {}).get("positive")
    return None if name is None else Positive(name, metrics.get("positive_by", "default"))


def read_stored(facts: Mapping[str, Any]) -> Positive | None:
    """Return the positive class stored in saved rows; None if none was named.

    >>> read_stored({"positive": "SICK", "positive_by": "--positive"})
    Positive(name='SICK', said_by='rows')
    """
    positive = read_positive(facts)
    return replace(positive, said_by="rows") if positive and positive.said_by == "--positive" else positive


def describe_positive(metrics: Mapping[str, Any], shown: Mapping[str, str] | None = None) -> str | None:
    """Return the positive class and who set it, in words; None without one. shown: display names by class name.

    >>> describe_positive({"positive": "SICK", "positive_by": "recipe"})
    'positive class: SICK, set by the recipe'
    """
    positive = read_positive(metrics)
    if positive is None:
        return None
    if positive.said_by == "default":
        names = [(shown or {}).get(name, name) for name in metrics["per_class"]]
        return f"positive class: {describe_default(names)}"
    return f"positive class: {(shown or {}).get(positive.name, positive.name)}, {_WHO[positive.said_by]}"


def list_lines(metrics: Mapping[str, Any], remedy: str, shown: Mapping[str, str] | None = None) -> list[str]:
    """Return sentences about the positive class; [] without one. `remedy`: how to name it if it is the default."""
    found, positive = describe_found(metrics, shown), read_positive(metrics)
    if found is None or positive is None:
        return []
    which = describe_positive(metrics, shown)
    return [found, f"{which}; {remedy}" if positive.said_by == "default" else f"{which}"]


def describe_found(metrics: Mapping[str, Any], shown: Mapping[str, str] | None = None) -> str | None:
    """Return how many pictures of the positive class were found and how many others were wrongly called it, from the
    confusion matrix; None if no class is positive. shown: display names by class name.

    >>> metrics = {"positive": "BAD", "per_class": {"BAD": {}, "GOOD": {}}, "confusion": [[180, 99], [28, 349]]}
    >>> describe_found(metrics)
    'of 279 BAD pictures 180 were found; of 377 GOOD pictures 28 were wrongly called BAD'
    """
    positive = read_positive(metrics)
    if positive is None:
        return None
    classes, counts = list(metrics["per_class"]), np.array(metrics["confusion"])
    at = classes.index(positive.name)
    names = [(shown or {}).get(name, name) for name in classes]
    there, found, said = int(counts[at].sum()), int(counts[at, at]), int(counts[:, at].sum())
    rest = names[1 - at] if len(names) == 2 else "other"
    return "; ".join(
        (
            _count(there, names[at], found, "found"),
            _count(int(counts.sum()) - there, rest, said - found, f"wrongly called {names[at]}"),
        )
    )


def _count(total: int, kind: str, number: int, what: str) -> str:
    if total == 0:
        return f"there are no {kind} pictures"
    pictures, were = "picture" if total == 1 else "pictures", "was" if number == 1 else "were"
    return f"of {total:,} {kind} {pictures} {number:,} {were} {what}"
