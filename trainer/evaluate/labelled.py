"""Labelled, unpacked pictures from a folder, an archive or a list, matched to a bundle's classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shards.errors import UsageError
from shards.sources.find import find_sources
from shards.sources.kinds import find_kind, name_kind
from shards.sources.list_form import ListForm
from shards.sources.location import is_dataset, is_uri
from shards.sources.model import Source, SourceList, Store
from trainer.contract.bundle import BundlePage
from trainer.evaluate.matching import describe_missing, match_classes

USUAL = "test"
"""The default split for evaluation."""


_FORM = ListForm(option="--list-columns")


@dataclass(frozen=True)
class Reading:
    """How unpacked pictures are read, see `find_sources`."""

    layout: str | None = None
    group_regex: str | None = None
    names: str | None = None
    form: ListForm = _FORM

    def name_given(self) -> str | None:
        """Return the name of an option that is set, for messages."""
        given = {"--layout": self.layout, "--group-regex": self.group_regex, "--names": self.names}
        return next((option for option, value in given.items() if value), None) or self.form.name_given()


@dataclass(frozen=True)
class Labelled:
    """Pictures sorted by name, each with classes of the bundle; notes: notes for the user.

    where: As the user wrote it. part: Name in files, from the folder, archive or list, and the split.
    """

    where: str
    part: str
    sources: list[Source]
    store: Store
    notes: list[str]


def is_packed(location: str) -> bool:
    """Return whether a location can only be a packed dataset: it is one, is in a store, or does not exist."""
    return is_uri(location) or is_dataset(location) or not Path(location).exists()


def list_labelled(location: str, split: str, page: BundlePage, reading: Reading) -> Labelled:
    """Return the pictures of a folder, an archive or a list for a bundle.

    Args:
        location: A folder, archive or list that can be packed.
        split: Name of the split; "": the usual one, or the only one.
        page: Metadata of the bundle; any of its classes may be missing.
        reading: How to read the pictures.

    Raises:
        UsageError: Nothing is there, the bundle does not have a class, pictures have one label but the bundle gives
            several or vice versa, or the split does not exist.
        ShardError: The archive is damaged.
    """
    listed = _list(location, page, reading)
    _check_task(location, listed, page)
    named, alike = match_classes(location, page.classes, listed.classes)
    sources = [_rename(source, named) for source in listed.sources]
    part = _name(location)
    splits = {source.split for source in sources if source.split is not None}
    if splits or split:
        chosen = choose_split(location, sorted(splits), split)
        sources, part = [source for source in sources if source.split == chosen], f"{part}-{chosen}"
    there = {label for source in sources for label in source.labels}
    notes = describe_missing(page.classes, there)
    left_out = ", ".join(f"{count:,} {ending}" for ending, count in listed.left_out.items())
    notes += [f"files without a picture's extension are left out: {left_out}"] if left_out else []
    return Labelled(location, part, sources, listed.store, [*listed.notes, *alike, *notes])


def _list(location: str, page: BundlePage, reading: Reading) -> SourceList:
    form = reading.form
    if page.task == "multi-label":
        form = replace(form, empty=True)  # no class at all is also an answer
    kind = find_kind(location)
    try:
        return find_sources(
            Path(location),
            layout=reading.layout,
            group_regex=reading.group_regex,
            form=form if (kind and kind.is_list) or reading.form.name_given() else None,
            alike="keep",
            drop_empty=True,
            incomplete=True,
            names=reading.names,
        )
    except UsageError as err:
        if "--unlabelled" not in str(err):
            raise
        raise UsageError(f"{err}; evaluation needs labels, use trainer.predict for pictures without") from err


def _check_task(location: str, listed: SourceList, page: BundlePage) -> None:
    several = page.task == "multi-label"
    if listed.multi_label and not several:
        raise UsageError(
            f"{location} has pictures with several labels or none, but the bundle gives one label; they cannot "
            "be compared, so nothing was evaluated: keep one label per picture"
        )
    kind = find_kind(location)
    if several and not listed.multi_label and (kind is None or not kind.is_list):
        raise UsageError(
            f"{location} has one class per picture, but the bundle gives any number of labels: a folder does not show "
            "the other labels of a picture, so nothing was evaluated; give a list with all labels of each picture"
        )


def choose_split(where: str, splits: Sequence[str], named: str) -> str:
    """Return the named split, else test, else the only one.

    Raises:
        UsageError: The split does not exist, or the choice is ambiguous.

    >>> choose_split("cells", ["train", "val", "test"], ""), choose_split("cells", ["train"], "")
    ('test', 'train')
    """
    if named and named not in splits:
        there = f"it has {', '.join(splits)}" if splits else f"it has none: give just {where} for all its pictures"
        raise UsageError(f"{where} has no split '{named}'; {there}")
    if named or USUAL in splits:
        return named or USUAL
    if len(splits) == 1:
        return splits[0]
    ways = " or ".join(f"{where}:{name}" for name in splits)
    raise UsageError(f"{where} has no split '{USUAL}' and several others; give {ways}")


def _rename(source: Source, named: Mapping[str, str]) -> Source:
    labels = tuple(dict.fromkeys(named[label] for label in source.labels))
    return source if labels == source.labels else replace(source, labels=labels)


def _name(location: str) -> str:
    """Return the last name of a path without its extension.

    >>> _name("data/new photos/"), _name("/tmp/a.TAR.gz"), _name("x.csv")
    ('new photos', 'a', 'x')
    """
    name = Path(location).absolute().name
    kind = None if Path(location).is_dir() else name_kind(name)
    ending = max((each for each in kind.endings if name.lower().endswith(each)), key=len) if kind else ""
    return name.removesuffix(name[len(name) - len(ending) :]) if ending else name
