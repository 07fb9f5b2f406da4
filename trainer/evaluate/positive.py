"""The positive class of an evaluation: which it is, who named it, and how many of its pictures were found, in words."""

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
    "--positive": "as --positive says",
    "recipe": "as the recipe says",
    "bundle": "as is stored with the bundle",
    "dataset": "as is stored with the dataset",
    "rows": "as the rows were evaluated before",
}


@dataclass(frozen=True)
class Positive:
    """The class that is looked for. said_by: who named it; default: nobody, it is the second of two."""

    name: str
    said_by: SaidBy


def take_first(**said: str | None) -> Positive | None:
    """Return the first class that is named, by who named it.

    >>> take_first(recipe=None, dataset="DEFECTIVE")
    Positive(name='DEFECTIVE', said_by='dataset')
    """
    return next((Positive(name, by) for by, name in said.items() if name is not None), None)  # type: ignore[arg-type]


def take_default(task: Task, classes: list[str]) -> Positive | None:
    """Return the class that is positive where nothing names one; None where none is."""
    name = task.find_positive(classes)
    return None if name is None else Positive(name, "default")


def find_positive(recipe: Recipe, dataset: Dataset) -> Positive | None:
    """Return the class that a run looks for, as its recipe names it, else its dataset; None where nobody does."""
    return take_first(recipe=recipe.positive, dataset=dataset.manifest.positive)


def read_positive(metrics: Mapping[str, Any]) -> Positive | None:
    """Return the positive class of metrics.json; None where there is none.

    Evaluations of earlier versions have it beside the rule alone, and nobody could name it in a run.
    """
    name = metrics.get("positive") or metrics.get("decision", {}).get("positive")
    return None if name is None else Positive(name, metrics.get("positive_by", "default"))


def read_stored(facts: Mapping[str, Any]) -> Positive | None:
    """Return the positive class that saved rows know; None where nobody named one for them.

    >>> read_stored({"positive": "SICK", "positive_by": "--positive"})
    Positive(name='SICK', said_by='rows')
    """
    positive = read_positive(facts)
    return replace(positive, said_by="rows") if positive and positive.said_by == "--positive" else positive


def describe_positive(metrics: Mapping[str, Any], shown: Mapping[str, str] | None = None) -> str | None:
    """Return which class is positive, and why; None where none is. shown: what classes are called, by name.

    >>> describe_positive({"positive": "SICK", "positive_by": "recipe"})
    'positive class: SICK, as the recipe says'
    """
    positive = read_positive(metrics)
    if positive is None:
        return None
    if positive.said_by == "default":
        names = [(shown or {}).get(name, name) for name in metrics["per_class"]]
        return f"positive class: {describe_default(names)}"
    return f"positive class: {(shown or {}).get(positive.name, positive.name)}, {_WHO[positive.said_by]}"


def list_lines(metrics: Mapping[str, Any], remedy: str, shown: Mapping[str, str] | None = None) -> list[str]:
    """Return the sentences that follow; none without a positive class. `remedy` is for where nobody named it."""
    found, positive = describe_found(metrics, shown), read_positive(metrics)
    if found is None or positive is None:
        return []
    which = describe_positive(metrics, shown)
    return [found, f"{which}; {remedy}" if positive.said_by == "default" else f"{which}"]


def describe_found(metrics: Mapping[str, Any], shown: Mapping[str, str] | None = None) -> str | None:
    """Return how many pictures of the positive class were found, and how many others were called so, by the confusion
    matrix of the rule in force; None where no class is positive. shown: what classes are called, by name.

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
        return f"no {kind} pictures are among them"
    pictures, were = "picture" if total == 1 else "pictures", "was" if number == 1 else "were"
    return f"of {total:,} {kind} {pictures} {number:,} {were} {what}"
