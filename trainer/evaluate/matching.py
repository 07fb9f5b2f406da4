"""Classes of pictures and of a bundle, matched by name: a set to evaluate on may lack some, or sort them otherwise."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from shards.cli.sentences import join_some
from shards.dataset.dataset import Dataset, shorten
from shards.errors import UsageError
from trainer.contract.bundle import BundlePage
from trainer.evaluate.rows import Rows


@dataclass(frozen=True)
class Match:
    """named: the bundle's class for each of the dataset's. notes: what the user should know."""

    known: Sequence[str]
    named: Mapping[str, str]
    notes: list[str]

    def renumber(self, rows: Rows) -> Rows:
        """Return rows whose labels count the dataset's classes as such whose labels count the bundle's."""
        places = np.array([self.known.index(name) for name in self.named.values()], np.int64)
        if rows.labels.ndim == 1:
            return replace(rows, labels=places[rows.labels])
        labels = np.zeros((len(rows.labels), len(self.known)), rows.labels.dtype)
        labels[:, places] = rows.labels
        return replace(rows, labels=labels)

    def find(self, positive: str | None) -> str | None:
        """Return what the bundle calls the class that the dataset looks for."""
        return None if positive is None else self.named[positive]


def match_dataset(page: BundlePage, dataset: Dataset, part: str) -> Match:
    """Return the match of a bundle and a dataset, whose classes may be fewer or sorted otherwise.

    Raises:
        UsageError: The dataset has a class that the bundle does not know, several labels a sample where the bundle
            gives one (or the other way round), or no such part.
    """
    where = shorten(dataset.location)
    if page.task != dataset.manifest.task:
        raise UsageError(
            f"the bundle is {page.task}, the dataset {dataset.manifest.task}; their labels do not compare, so "
            "nothing was evaluated; take a dataset of the bundle's kind"
        )
    named, notes = match_classes(where, page.classes, dataset.classes)
    _refuse_doubles(where, named)
    counts = dataset.split(part).class_counts.sum(axis=0).tolist()
    there = {named[name] for name, count in zip(dataset.classes, counts, strict=True) if count}
    if len(named) < len(page.classes):
        notes = [*notes, *describe_missing(page.classes, there)]
    return Match(page.classes, named, notes)


def _refuse_doubles(where: str, named: Mapping[str, str]) -> None:
    """Refuse a dataset that keeps two classes apart which are one to the bundle."""
    for name in named.values():
        same = [own for own, known in named.items() if known == name]
        if len(same) > 1:
            raise UsageError(
                f"{where} keeps the classes {' and '.join(same)} apart, and the bundle knows {name} alone, so nothing "
                "was evaluated; pack again with --alike join"
            )


def describe_missing(known: Sequence[str], there: Collection[str]) -> list[str]:
    """Return a sentence on the classes of a bundle that no picture has, where there are such."""
    missing = [name for name in known if name not in there]
    return [f"no picture is of {join_some(missing)}, which the bundle knows"] if missing else []


def match_classes(where: str, known: Sequence[str], found: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return which class of a bundle each of the classes found is, by name, and sentences on those spelt otherwise.

    Raises:
        UsageError: One that the bundle does not know.

    >>> match_classes("new", ["cat", "dog"], ["Cat"])
    ({'Cat': 'cat'}, ["new: the class 'Cat' is taken for the bundle's 'cat'"])
    """
    named: dict[str, str] = {}
    notes = []
    for name in found:
        same = [name] if name in known else _find_alike(name, known)
        if len(same) != 1:
            raise UsageError(
                f"{where} has a class '{name}', which the bundle does not know; it knows {join_some(known)}. Whatever "
                "it answers there would be wrong, so nothing was evaluated: name the class as the bundle does, or "
                "leave its pictures out"
            )
        named[name] = same[0]
        if same[0] != name:
            notes.append(f"{where}: the class '{name}' is taken for the bundle's '{same[0]}'")
    return named, notes


def _find_alike(name: str, known: Sequence[str]) -> list[str]:
    """Return the classes of a bundle that a name looks like."""
    from shards.sources.class_forms import fold_class  # late: most datasets spell their classes as the bundle does

    return [own for own in known if fold_class(own) == fold_class(name)]
