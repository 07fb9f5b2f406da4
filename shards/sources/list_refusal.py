"""What is wrong with the columns of a list, in one sentence with the options that say what was meant."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from shards.sources.headings import clean, find_column, trim
from shards.sources.layout import ENDINGS, read_ending
from shards.sources.list_form import ListForm, join_words
from shards.sources.split_words import is_split_word
from shards.sources.table import Table

_FLAGS = frozenset({"", "0", "1", "-1", "0.0", "1.0", "-1.0", "true", "false"})
_SHOWN = 20


@dataclass(frozen=True)
class Refusal:
    """What is wrong with the columns of a list, and the options that say what was meant."""

    where: object
    table: Table
    form: ListForm
    missing: Sequence[str]
    near: Mapping[str, int]
    free: Sequence[int]

    def explain(self) -> str:
        """Return the sentence."""
        if not self.table.columns:
            return f"{self.where} is empty; write the names of its columns, and below them a row for each picture"
        if self.missing and any(read_ending(clean(name)) in ENDINGS for name in self.table.columns):
            return (
                f"{self.where} begins with a row ('{join_words(self.table.columns)}') and not with the names of its "
                f"columns; write them in a line above it, such as {self._guess_header()}"
            )
        return self._explain_missing() if self.missing else self._explain_near()

    def _guess_header(self) -> str:
        names: list[str] = []
        for value in self.table.columns:
            role = (
                "path" if read_ending(clean(value)) in ENDINGS else "split" if is_split_word(trim(value)) else "label"
            )
            names.append(role if role not in names and role in self.form.roles else f"column{len(names) + 1}")
        return join_words(names)

    def _explain_missing(self) -> str:
        likely = {role: place for role, place in self.near.items() if role in self.missing}
        flags: list[int] = []
        if "label" in self.missing and "label" not in likely:
            flags = self._find_flags()
            likely |= self._guess_label(flags)
        told = {role: self._spell(likely[role]) if role in likely else "NAME" for role in self.missing}
        one_hot = ""
        if "label" not in likely and len(flags) > 1:
            del told["label"]
            one_hot = f"--one-hot {shlex.quote(join_words(self._spell(place) for place in flags))}"
        optional = {role: place for role, place in self.near.items() if role not in self.missing}
        told |= {role: self._spell(place) if self._fits(role) else "" for role, place in optional.items()}
        words = " ".join(word for word in (self.form.spell(told) if told else "", one_hot) if word)
        looks = f", and {_join([self._tell_look(role) for role in optional])}" if optional else ""
        return (
            f"{self.where} has no column {' and no column '.join(self.missing)}; its columns are "
            f"{show_names(self.table.columns)}{looks}; give {words}"
            + (" if each of these columns is a class" if one_hot else "")
            + self._tell_way_out(optional)
        )

    def _tell_way_out(self, optional: Collection[str]) -> str:
        """Return how a column that only looks like one of ours is left out, where others are missing as well."""
        empty = " ".join(f"{role}=" for role in optional if self._fits(role))
        return f" (write {empty} there to leave {'it' if len(optional) == 1 else 'them'} out)" if empty else ""

    def _explain_near(self) -> str:
        looks = _join([self._tell_look(role) for role in self.near])
        leave = self.form.spell(dict.fromkeys(self.near, ""))
        take = {role: self._spell(place) if self._fits(role) else "" for role, place in self.near.items()}
        if not any(take.values()):
            return f"{self.where}: {looks}; write these into it, or give {leave} to leave it out"
        it = "it" if len(self.near) == 1 else "them"
        return (
            f"{self.where}: {looks}, and by that name would be left out; give {self.form.spell(take)} to take {it}, "
            f"or {leave} to leave {it} out"
        )

    def _tell_look(self, role: str) -> str:
        look = f"'{clean(self.table.columns[self.near[role]])}' looks like the column {role}"
        if self._fits(role):
            return look
        wrong = next(value for value in self._scan_split() if not is_split_word(trim(value)))
        return f"{look}, but its values, such as '{trim(wrong)}', are no splits (train, val or test)"

    def _fits(self, role: str) -> bool:
        return role != "split" or all(is_split_word(trim(value)) for value in self._scan_split())

    def _scan_split(self) -> Iterable[str]:
        return (value for value in self.table.scan(self.near["split"]) if trim(value))

    def _find_flags(self) -> list[int]:
        """Return the columns of 0 and 1, in which a 1 may be a class."""
        flags = []
        for place in self.free:
            if place in self.near.values() or not can_be_named(self.table.columns, place):
                continue
            values = set()
            for value in self.table.scan(place):
                values.add(trim(value).casefold())
                if not values <= _FLAGS:
                    break
            if values <= _FLAGS and values & {"1", "1.0", "true"}:
                flags.append(place)
        return flags

    def _guess_label(self, flags: Sequence[int]) -> dict[str, int]:
        left = [place for place in self.free if place not in self.near.values()]
        only = flags if len(flags) == 1 else left if len(left) == 1 else []
        return {"label": only[0]} if only and can_be_named(self.table.columns, only[0]) else {}

    def _spell(self, place: int) -> str:
        names = self.table.columns
        return clean(names[place]) if find_column(names, clean(names[place])) == [place] else names[place]


def can_be_named(names: Sequence[str], place: int) -> bool:
    """Say whether an option can name the column at a place, and that column alone."""
    return bool(clean(names[place])) and find_column(names, names[place]) == [place]


def _join(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def show_names(names: Sequence[str]) -> str:
    """Return names of columns between commas: the first of them where there are many."""
    shown = [clean(name) or "(no name)" for name in names[:_SHOWN]]
    return ", ".join([*shown, *([f"and {len(names) - _SHOWN:,} more"] if len(names) > _SHOWN else [])]) or "none"
