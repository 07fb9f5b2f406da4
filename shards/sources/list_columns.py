"""The columns of a list by role: path, label, split, group and weight; near misses are refused."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from shards.cli.sentences import suggest
from shards.errors import UsageError
from shards.sources.headings import clean, find_column, fold, rank_near
from shards.sources.list_form import ListForm
from shards.sources.list_refusal import Refusal, can_be_named, show_names
from shards.sources.split_columns import Rank, rank_split
from shards.sources.table import Table


@dataclass(frozen=True)
class Choice:
    """places: column of each role. one_hot: column of each class. notes: notes for the user."""

    places: Mapping[str, int]
    one_hot: Mapping[str, int]
    notes: Sequence[str]


def choose_columns(
    where: object, table: Table, form: ListForm, needed: Sequence[str], settled: Collection[str] = ()
) -> Choice:
    """Return the roles of a table's columns; names are compared without blanks, case and width.

    Args:
        where: The table, for error messages.
        table: The list.
        form: The user's description of the list, with the roles to look for.
        needed: Roles that must have a column.
        settled: Roles that are filled by other means, so that a synonym of one is not reported as forgotten.

    Raises:
        UsageError: A needed column is missing, there twice, or misspelt; the message has the option to give.
    """
    names = table.columns
    given = _find_given(where, names, form)
    flags = [_find_one(where, names, name, f"--one-hot {name}") for name in form.one_hot]
    one_hot = {clean(names[place]): place for place in flags}
    places = {**given, **_find_spelt(where, names, form, {*given.values(), *one_hot.values()})}
    _refuse_shared(form, [*places.items(), *(("--one-hot", place) for place in one_hot.values())])
    filled = {*places, *({"label"} if one_hot else ())}
    missing = [role for role in needed if role not in filled]
    free = [place for place in range(len(names)) if place not in {*places.values(), *one_hot.values()}]
    sought = [role for role in form.roles if role not in {*filled, *form.columns, *settled}]
    near = _find_near(table, sought, free)
    if missing or near:
        raise UsageError(Refusal(where, table, form, missing, near, free).explain())
    if not table.numbers:
        raise UsageError(f"{where} has no rows; write a row for each picture")
    return Choice(places, one_hot, [*describe_spelt(where, names, places, given), *_describe_free(where, names, free)])


def _find_given(where: object, names: Sequence[str], form: ListForm) -> dict[str, int]:
    named = {role: name for role, name in form.columns.items() if clean(name)}
    return {role: _find_one(where, names, name, f"{form.option} {role}={name}") for role, name in named.items()}


def _find_one(where: object, names: Sequence[str], wanted: str, option: str) -> int:
    found = find_column(names, wanted)
    if not found:
        hint = suggest(clean(wanted), map(clean, names))
        raise UsageError(f"{option}: {where} has no such column; its columns are {show_names(names)}{hint}")
    if len(found) > 1:
        raise UsageError(f"{option}: {where} has {_show_doubles(names, found)}; rename one of them")
    return found[0]


def _find_spelt(where: object, names: Sequence[str], form: ListForm, taken: Collection[int]) -> dict[str, int]:
    places: dict[str, int] = {}
    for role in form.roles:
        if role in form.columns or (role == "label" and form.one_hot):
            continue
        found = [place for place, name in enumerate(names) if fold(name) == role and place not in taken]
        if len(found) > 1:
            unique = [names[place] for place in found if len(find_column(names, names[place])) == 1]
            or_choose = f", or choose one with {form.spell({role: unique[0]})}" if unique else ""
            raise UsageError(f"{where} has {_show_doubles(names, found)}; keep one of them{or_choose}")
        if found:
            places[role] = found[0]
    return places


def _refuse_shared(form: ListForm, uses: Iterable[tuple[str, int]]) -> None:
    seen: dict[int, str] = {}
    for use, place in uses:
        if place in seen:
            raise UsageError(f"{form.option} and --one-hot name one column as {seen[place]} and as {use}; take one out")
        seen[place] = use


def _find_near(table: Table, sought: Sequence[str], free: Sequence[int]) -> dict[str, int]:
    """Return for each missing role the free column that is most likely meant, if any could be."""
    near: dict[str, int] = {}
    for role in sought:
        left = [place for place in free if place not in near.values() and can_be_named(table.columns, place)]
        ranks = {place: rank for place in left if (rank := _rank(table, place, role)) is not None}
        if ranks:
            near[role] = min(ranks, key=lambda place: (ranks[place], place))
    return near


def _rank(table: Table, place: int, role: str) -> Rank | None:
    name = table.columns[place]
    if role == "split":
        return rank_split(name, lambda: table.scan(place))
    rank = rank_near(name, role)
    return None if rank is None else (0, rank)


def _show_doubles(names: Sequence[str], found: Sequence[int]) -> str:
    spelt = [repr(names[place]) for place in found]
    count = "two" if len(found) == 2 else f"{len(found):,}"
    same = " and ".join(spelt) if len(set(spelt)) > 1 else clean(names[found[0]])
    return f"{count} columns {same}"


def describe_spelt(
    where: object, names: Sequence[str], places: Mapping[str, int], given: Collection[str] = ()
) -> list[str]:
    """Return a note on columns with unusual spellings of their roles, except those that the user named."""
    odd = [
        f"{names[place]!r} as {role}" for role, place in places.items() if role not in given and names[place] != role
    ]
    return [f"{where}: columns are used despite blanks or case: {', '.join(odd)}"] if odd else []


def _describe_free(where: object, names: Sequence[str], free: Sequence[int]) -> list[str]:
    return [f"{where}: unused columns: {show_names([names[place] for place in free])}"] if free else []
