"""Pictures with labels that nobody packed: a folder, an archive or a list, as a bundle's classes name them."""

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
"""The split that is evaluated where none is named."""


_FORM = ListForm(option="--list-columns")


@dataclass(frozen=True)
class Reading:
    """How pictures that are not packed are read, see `find_sources`."""

    layout: str | None = None
    group_regex: str | None = None
    names: str | None = None
    form: ListForm = _FORM

    def name_given(self) -> str | None:
        """Return an option that was given."""
        given = {"--layout": self.layout, "--group-regex": self.group_regex, "--names": self.names}
        return next((option for option, value in given.items() if value), None) or self.form.name_given()


@dataclass(frozen=True)
class Labelled:
    """Pictures in the order of their names, each with classes of the bundle; notes: what the user should know.

    where: as the user wrote it. part: what files call them: the name of the folder, archive or list, and the split.
    """

    where: str
    part: str
    sources: list[Source]
    store: Store
    notes: list[str]


def is_packed(location: str) -> bool:
    """Say whether a location can only be that of a packed dataset: it is one, in a store, or not there at all."""
    return is_uri(location) or is_dataset(location) or not Path(location).exists()


def list_labelled(location: str, split: str, page: BundlePage, reading: Reading) -> Labelled:
    """Return the pictures of a folder, an archive or a list for a bundle.

    Args:
        location: Of a kind that can be packed.
        split: Of them; where it is empty the usual one, or the only one.
        page: Of the bundle; any of its classes may be missing.
        reading: What the user says about them.

    Raises:
        UsageError: Nothing there, a class that the bundle does not know, one label where it gives several or the other
            way round, or a split that is not there.
        ShardError: A damaged archive.
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
    notes += [f"files that are no pictures by their ending are left out: {left_out}"] if left_out else []
    return Labelled(location, part, sources, listed.store, [*listed.notes, *alike, *notes])


def _list(location: str, page: BundlePage, reading: Reading) -> SourceList:
    form = reading.form
    if page.task == "multi-label":
        form = replace(form, empty=True)  # none of the classes is an answer as well
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
        raise UsageError(f"{err}; here labels are needed, and trainer.predict takes pictures without them") from err


def _check_task(location: str, listed: SourceList, page: BundlePage) -> None:
    several = page.task == "multi-label"
    if listed.multi_label and not several:
        raise UsageError(
            f"{location} has pictures of several labels or none, and the bundle gives each one label; they do not "
            "compare, so nothing was evaluated: keep one label a picture"
        )
    kind = find_kind(location)
    if several and not listed.multi_label and (kind is None or not kind.is_list):
        raise UsageError(
            f"{location} has one class a picture, and the bundle gives any number of labels: a folder does not say "
            "which of the others a picture has, so nothing was evaluated; give a list with all labels of each"
        )


def choose_split(where: str, splits: Sequence[str], named: str) -> str:
    """Return the split that is named, else test, else the only one.

    Raises:
        UsageError: It is not there, or nothing says which one is meant.

    >>> choose_split("cells", ["train", "val", "test"], ""), choose_split("cells", ["train"], "")
    ('test', 'train')
    """
    if named and named not in splits:
        there = f"it has {', '.join(splits)}" if splits else f"it has none: give {where} alone for all its pictures"
        raise UsageError(f"{where} has no split '{named}'; {there}")
    if named or USUAL in splits:
        return named or USUAL
    if len(splits) == 1:
        return splits[0]
    ways = " or ".join(f"{where}:{name}" for name in splits)
    raise UsageError(f"{where} has no split '{USUAL}', and which of the others is meant is not said; give {ways}")


def _rename(source: Source, named: Mapping[str, str]) -> Source:
    labels = tuple(dict.fromkeys(named[label] for label in source.labels))
    return source if labels == source.labels else replace(source, labels=labels)


def _name(location: str) -> str:
    """Return the last name of a path without the ending of its kind.

    >>> _name("data/new photos/"), _name("/tmp/a.TAR.gz"), _name("x.csv")
    ('new photos', 'a', 'x')
    """
    name = Path(location).absolute().name
    kind = None if Path(location).is_dir() else name_kind(name)
    ending = max((each for each in kind.endings if name.lower().endswith(each)), key=len) if kind else ""
    return name.removesuffix(name[len(name) - len(ending) :]) if ending else name
