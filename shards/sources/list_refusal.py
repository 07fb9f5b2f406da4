"""Error messages about the columns of a list: what is wrong, and the options for what was probably meant."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from shards.sources.endings import ENDINGS, read_ending
from shards.sources.headings import clean, find_column, fold, trim
from shards.sources.list_form import ListForm, join_words
from shards.sources.split_columns import are_flags, find_wrong
from shards.sources.split_words import is_split_word
from shards.sources.table import Table

_FLAGS = frozenset({"", "0", "1", "-1", "0.0", "1.0", "-1.0", "true", "false"})
_SHOWN = 20


@dataclass(frozen=True)
class Refusal:
    """What is wrong with the columns of a list."""

    where: object
    table: Table
    form: ListForm
    missing: Sequence[str]
    near: Mapping[str, int]
    free: Sequence[int]

    def explain(self) -> str:
        """Return the message."""
        if not self.table.columns:
            return f"{self.where} is empty; write the names of its columns, and below them a row for each picture"
        if self.missing and any(read_ending(clean(name)) in ENDINGS for name in self.table.columns):
            row = join_words(self.table.columns, self.table.delimiter)
            return (
                f"{self.where} begins with a row ('{row}') instead of the names of its columns; write them in a "
                f"line above it, for example {self._guess_header()}"
            )
        return self._explain_missing() if self.missing else self._explain_near()

    def _guess_header(self) -> str:
        names: list[str] = []
        for value in self.table.columns:
            role = (
                "path" if read_ending(clean(value)) in ENDINGS else "split" if is_split_word(trim(value)) else "label"
            )
            names.append(role if role not in names and role in self.form.roles else f"column{len(names) + 1}")
        return join_words(names, self.table.delimiter)

    def _explain_missing(self) -> str:
        likely = {role: place for role, place in self.near.items() if role in self.missing}
        if self._is_class("split", likely):
            others = {role: place for role, place in self.near.items() if role != "split"}
            return replace(self, near=others)._explain_missing()
        flags: list[int] = []
        zeros: list[int] = []
        if "label" in self.missing and "label" not in likely:
            flags, zeros = self._find_flags()
            likely |= self._guess_label(flags)
        named = {role: self._spell(likely[role]) if role in likely else "NAME" for role in self.missing}
        one_hot = ""
        if "label" not in likely and len(flags) > 1:
            del named["label"]
            one_hot = f"--one-hot {shlex.quote(join_words(self._spell(place) for place in flags))}"
        optional = {role: place for role, place in self.near.items() if role not in self.missing}
        named |= {role: self._spell(place) if self._fits(role) else "" for role, place in optional.items()}
        words = " ".join(word for word in (self.form.spell(named) if named else "", one_hot) if word)
        looks = f", and {join_names([self._describe_look(role) for role in optional])}" if optional else ""
        return (
            f"{self.where} has no column {' and no column '.join(self.missing)}; its columns are "
            f"{show_names(self.table.columns)}{looks}; give {words}"
            + (f" if each of these columns is a class{self._describe_zeros(zeros)}" if one_hot else "")
            + self._describe_way_out(optional)
        )

    def _is_class(self, role: str, likely: Collection[str]) -> bool:
        """Return whether a column that looks like a role is one of several class columns: train, beside car and
        boat.
        """
        if "label" not in self.missing or "label" in likely or role not in self.near:
            return False
        name = fold(self.table.columns[self.near[role]])
        return is_split_word(name) and are_flags(self._scan_split()) and len(self._find_flags()[0]) > 1

    def _describe_zeros(self, zeros: Sequence[int]) -> str:
        if not zeros:
            return ""
        so = "it would not be a class" if len(zeros) == 1 else "they would not be classes"
        return f" (no picture has a 1 in {show_names([self.table.columns[place] for place in zeros])}, so {so})"

    def _describe_way_out(self, optional: Collection[str]) -> str:
        """Return how to leave out columns that only look like roles, if other roles are missing."""
        empty = " ".join(f"{role}=" for role in optional if self._fits(role))
        return f" (write {empty} there to leave {'it' if len(optional) == 1 else 'them'} out)" if empty else ""

    def _explain_near(self) -> str:
        looks = join_names([self._describe_look(role) for role in self.near])
        leave = self.form.spell(dict.fromkeys(self.near, ""))
        take = {role: self._spell(place) if self._fits(role) else "" for role, place in self.near.items()}
        if not any(take.values()):
            write = "write a column split of train, val and test instead"
            return f"{self.where}: {looks}; {write}, or give {leave} to ignore it"
        it = "it" if len(self.near) == 1 else "them"
        return (
            f"{self.where}: {looks}, and with that name would be ignored; give {self.form.spell(take)} to use {it}, "
            f"or {leave} to leave {it} out"
        )

    def _describe_look(self, role: str) -> str:
        look = f"'{clean(self.table.columns[self.near[role]])}' looks like the column {role}"
        if self._fits(role):
            return look
        wrong = find_wrong(self._scan_split())
        return f"{look}, but its values, for example '{wrong}', are not splits (train, val or test)"

    def _fits(self, role: str) -> bool:
        return role != "split" or find_wrong(self._scan_split()) is None

    def _scan_split(self) -> Iterable[str]:
        return self.table.scan(self.near["split"])

    def _find_flags(self) -> tuple[list[int], list[int]]:
        """Return the columns of 0 and 1 that may be classes, and those with only 0."""
        flags, zeros = [], []
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
            elif values and values <= {"0", "0.0", "false"}:
                zeros.append(place)
        return flags, zeros

    def _guess_label(self, flags: Sequence[int]) -> dict[str, int]:
        left = [place for place in self.free if place not in self.near.values()]
        only = flags if len(flags) == 1 else left if len(left) == 1 else []
        return {"label": only[0]} if only and can_be_named(self.table.columns, only[0]) else {}

    def _spell(self, place: int) -> str:
        names = self.table.columns
        return clean(names[place]) if find_column(names, clean(names[place])) == [place] else names[place]


def can_be_named(names: Sequence[str], place: int) -> bool:
    """Return whether an option can name this column unambiguously."""
    return bool(clean(names[place])) and find_column(names, names[place]) == [place]


def join_names(parts: Sequence[str]) -> str:
    """Return names, or phrases, joined by commas and `and`."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def show_names(names: Sequence[str]) -> str:
    """Return column names separated by commas, only the first if there are many."""
    shown = [clean(name) or "(no name)" for name in names[:_SHOWN]]
    return ", ".join([*shown, *([f"and {len(names) - _SHOWN:,} more"] if len(names) > _SHOWN else [])]) or "none"
