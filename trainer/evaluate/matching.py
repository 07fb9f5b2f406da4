"""Match classes of pictures and of a bundle by name: a dataset may lack some, or have another order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from shards.cli.sentences import join_some
from shards.dataset.dataset import Dataset
from shards.errors import UsageError
from shards.storage.shown import show_location
from trainer.contract.bundle import BundlePage
from trainer.evaluate.rows import Rows


@dataclass(frozen=True)
class Match:
    """How the classes of a dataset correspond to those of a bundle.

    known: All class names of the bundle, in its order. named: Class of the dataset -> class of the bundle. notes: What
    to tell the user about the match.
    """

    known: Sequence[str]
    named: Mapping[str, str]
    notes: list[str]

    def renumber(self, rows: Rows) -> Rows:
        """Convert rows with class numbers of the dataset to class numbers of the bundle."""
        places = np.array([self.known.index(name) for name in self.named.values()], np.int64)
        if rows.labels.ndim == 1:
            return replace(rows, labels=places[rows.labels])
        labels = np.zeros((len(rows.labels), len(self.known)), rows.labels.dtype)
        labels[:, places] = rows.labels
        return replace(rows, labels=labels)

    def find(self, positive: str | None) -> str | None:
        """Return the bundle's name of the dataset's positive class."""
        return None if positive is None else self.named[positive]


def match_dataset(page: BundlePage, dataset: Dataset, part: str) -> Match:
    """Return the match of a bundle and a dataset, whose classes may be fewer or in another order.

    Raises:
        UsageError: The bundle does not have a class of the dataset, one has several labels per sample and the other
            one, or the split does not exist.
    """
    where = show_location(dataset.location)
    if page.task != dataset.manifest.task:
        raise UsageError(
            f"the bundle is {page.task}, but the dataset is {dataset.manifest.task}; labels cannot be compared, so "
            "nothing was evaluated; use a dataset of the bundle's kind"
        )
    named, notes = match_classes(where, page.classes, dataset.classes)
    _refuse_doubles(where, named)
    counts = dataset.split(part).class_counts.sum(axis=0).tolist()
    there = {named[name] for name, count in zip(dataset.classes, counts, strict=True) if count}
    if len(named) < len(page.classes):
        notes = [*notes, *describe_missing(page.classes, there)]
    return Match(page.classes, named, notes)


def _refuse_doubles(where: str, named: Mapping[str, str]) -> None:
    """Raise if two classes of a dataset are one class of the bundle."""
    for name in named.values():
        same = [own for own, known in named.items() if known == name]
        if len(same) > 1:
            raise UsageError(
                f"{where} keeps the classes {' and '.join(same)} apart, but the bundle only has {name}, so nothing "
                "was evaluated; pack again with --alike join"
            )


def describe_missing(known: Sequence[str], there: Collection[str]) -> list[str]:
    """Return a note on the classes of a bundle that no picture has, if there are any."""
    missing = [name for name in known if name not in there]
    return [f"no picture is of {join_some(missing)}, which the bundle has"] if missing else []


def match_classes(where: str, known: Sequence[str], found: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the bundle's class for each class found, by name, and notes on those spelled differently.

    Raises:
        UsageError: The bundle does not have a class.

    >>> match_classes("new", ["cat", "dog"], ["Cat"])
    ({'Cat': 'cat'}, ["new: the class 'Cat' is matched to the bundle's 'cat'"])
    """
    named: dict[str, str] = {}
    notes = []
    for name in found:
        same = [name] if name in known else _find_alike(name, known)
        if len(same) != 1:
            raise UsageError(
                f"{where} has a class '{name}', which the bundle does not have; it has {join_some(known)}. Any "
                "answer there would be wrong, so nothing was evaluated: rename the class to the bundle's, or "
                "leave its pictures out"
            )
        named[name] = same[0]
        if same[0] != name:
            notes.append(f"{where}: the class '{name}' is matched to the bundle's '{same[0]}'")
    return named, notes


def _find_alike(name: str, known: Sequence[str]) -> list[str]:
    """Return the classes of a bundle that are similar to a name."""
    from shards.sources.class_forms import fold_class  # late: most datasets spell their classes as the bundle does

    return [own for own in known if fold_class(own) == fold_class(name)]
