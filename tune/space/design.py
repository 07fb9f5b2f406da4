"""Which combinations of levels an ablation runs: all, one factor at a time, or a regular fraction with known aliases.

A fraction is the textbook's: levels are numbers modulo 2 or 3, some factors are sums of others, and what cannot be told
apart follows from these sums (Montgomery, Design and Analysis of Experiments, chapters 8 and 9). Two- and three-level
factors are fractioned apart from each other, and every run of one part is combined with every run of the other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from shards.errors import UsageError

Vector = tuple[int, ...]
"""Coefficients modulo the number of levels."""
_SEARCHED = 20_000
"""Sets of generators that are tried for one number of runs."""


@dataclass(frozen=True)
class Fraction:
    """A part of the full grid.

    runs: Level of each factor, by its position, in each run; the first run has level 0 of every factor.
    generators: Factor -> the sum of factors that it follows, for example "backbone + 2 augment".
    aliases: Effects that cannot be told apart, main effects and interactions of two factors, one list for each.
    resolution: Least number of factors in an effect that is always 0; 3: main effects are aliased with interactions of
        two factors, not with each other. None: nothing is aliased.
    """

    runs: list[Vector]
    generators: dict[str, str]
    aliases: list[list[str]]
    resolution: int | None


def list_full(sizes: Sequence[int]) -> list[Vector]:
    """Return every combination of levels, the last factor varying fastest.

    >>> list_full([2, 2])
    [(0, 0), (0, 1), (1, 0), (1, 1)]
    """
    return list(itertools.product(*map(range, sizes)))


def list_one_factor(sizes: Sequence[int]) -> list[Vector]:
    """Return the run with level 0 of every factor, and those in which one factor has another level.

    >>> list_one_factor([2, 3])
    [(0, 0), (1, 0), (0, 1), (0, 2)]
    """
    base = (0,) * len(sizes)
    changed = [
        (*base[:place], level, *base[place + 1 :]) for place, size in enumerate(sizes) for level in range(1, size)
    ]
    return [base, *changed]


def make_fraction(
    sizes: Mapping[str, int], resolution: int = 3, chosen: Mapping[str, Sequence[str]] | None = None
) -> Fraction:
    """Return the smallest fraction with at least this resolution.

    Args:
        sizes: Factor -> number of its levels, 2 or 3.
        resolution: 3 or more.
        chosen: Generators: factor -> the factors whose levels it sums; None: those of the least aberration are found.

    Raises:
        UsageError: A factor has more than 3 levels, or the generators are not possible or of less resolution.
    """
    for name, size in sizes.items():
        if size not in (2, 3):
            raise UsageError(
                f"design: fractional takes factors with 2 or 3 levels, and {name} has {size}; use design: full or "
                "one_factor, or leave out levels"
            )
    for name in chosen or {}:
        if name not in sizes:
            raise UsageError(f"generators name '{name}', which is no factor; there are {', '.join(sizes)}")
    parts = []
    for levels in (2, 3):
        names = [name for name, size in sizes.items() if size == levels]
        given = {name: words for name, words in (chosen or {}).items() if name in names}
        parts.append(_Part.make(names, levels, resolution, given if chosen else None))
    order = [name for part in parts for name in part.names]
    places = [order.index(name) for name in sizes]
    runs = [tuple((one + other)[place] for place in places) for one in parts[0].runs for other in parts[1].runs]
    found = [part.resolution for part in parts if part.resolution is not None]
    return Fraction(
        runs=sorted(runs),
        generators={name: text for part in parts for name, text in part.generators.items()},
        aliases=[alias for part in parts for alias in part.aliases],
        resolution=min(found, default=None),
    )


@dataclass(frozen=True)
class _Part:
    """The fraction of those factors that have the same number of levels.

    columns: For each factor, one coefficient per basic factor; the factor's level in a run is the sum of the basic
    factors' levels, each times its coefficient, modulo `levels`.
    """

    names: Sequence[str]
    levels: int
    columns: Sequence[Vector]

    @classmethod
    def make(
        cls, names: Sequence[str], levels: int, resolution: int, chosen: Mapping[str, Sequence[str]] | None
    ) -> _Part:
        if chosen:
            part = cls(names, levels, _read_columns(names, levels, chosen))
            if part.resolution is not None and part.resolution < resolution:
                raise UsageError(
                    f"the generators give resolution {part.resolution}, below {resolution}: "
                    f"{_spell(part.words[0], names)} is the same in every run; sum other factors"
                )
            return part
        for basics in range(1 if names else 0, len(names) + 1):
            found = cls._find(names, levels, basics)
            if found is not None and (found.resolution is None or found.resolution >= resolution):
                return found
        raise AssertionError("the full grid has no alias")

    @classmethod
    def _find(cls, names: Sequence[str], levels: int, basics: int) -> _Part | None:
        """Return the part with this many basic factors and the least aberration; None if there are too few columns."""
        units = [tuple(int(place == each) for place in range(basics)) for each in range(basics)]
        sums = sorted(
            (each for each in _list_normal(basics, levels) if sum(map(bool, each)) > 1),
            key=lambda each: (-sum(map(bool, each)), tuple(-number for number in each)),
        )
        best: tuple[tuple[float, ...], _Part] | None = None
        for added in itertools.islice(itertools.combinations(sums, len(names) - basics), _SEARCHED):
            part = cls(names, levels, [*units, *added])
            if best is None or part.aberration < best[0]:
                best = part.aberration, part
        return None if best is None else best[1]

    @property
    def runs(self) -> list[Vector]:
        basics = len(self.columns[0]) if self.columns else 0
        return [
            tuple(sum(a * b for a, b in zip(column, at, strict=True)) % self.levels for column in self.columns)
            for at in itertools.product(range(self.levels), repeat=basics)
        ]

    @property
    def words(self) -> list[Vector]:
        """Return the effects that are the same in every run, shortest first, each with coefficients of the factors."""
        return sorted(
            (word for word in _list_normal(len(self.names), self.levels) if not any(self._sum(word))),
            key=lambda word: sum(map(bool, word)),
        )

    @property
    def resolution(self) -> int | None:
        return sum(map(bool, self.words[0])) if self.words else None

    @property
    def aberration(self) -> tuple[float, ...]:
        """Return minus the resolution, and how many words have each length: the smaller, the better the fraction."""
        lengths = [sum(map(bool, word)) for word in self.words]
        return (-min(lengths, default=math.inf), *(lengths.count(length) for length in range(1, len(self.names) + 1)))

    @property
    def generators(self) -> dict[str, str]:
        basics = [name for name, column in zip(self.names, self.columns, strict=True) if sum(map(bool, column)) == 1]
        return {
            name: _spell(column, basics, " + ")
            for name, column in zip(self.names, self.columns, strict=True)
            if sum(map(bool, column)) > 1
        }

    @property
    def aliases(self) -> list[list[str]]:
        """Return the groups of effects of one or two factors that are the same function of the basic factors."""
        groups: dict[Vector, list[str]] = {}
        effects = (each for each in _list_normal(len(self.names), self.levels) if sum(map(bool, each)) <= 2)
        for effect in sorted(effects, key=lambda each: (sum(map(bool, each)), tuple(-number for number in each))):
            groups.setdefault(_normalise(self._sum(effect), self.levels), []).append(_spell(effect, self.names))
        return [group for group in groups.values() if len(group) > 1]

    def _sum(self, effect: Vector) -> Vector:
        rows = zip(*self.columns, strict=True)
        return tuple(sum(a * b for a, b in zip(effect, row, strict=True)) % self.levels for row in rows)


def _read_columns(names: Sequence[str], levels: int, chosen: Mapping[str, Sequence[str]]) -> list[Vector]:
    basics = [name for name in names if name not in chosen]
    columns = []
    for name in names:
        summed = chosen.get(name, [name])
        for other in summed:
            if other not in basics:
                raise UsageError(
                    f"generators: {name} cannot follow '{other}', which is no other factor with {levels} levels and no "
                    f"generator; there are {', '.join(basics)}"
                )
        if name in chosen and len(set(summed)) < 2:
            raise UsageError(f"generators: {name} must follow two factors or more, got {', '.join(summed) or 'none'}")
        columns.append(tuple(summed.count(basic) % levels for basic in basics))
    return columns


def _list_normal(length: int, levels: int) -> Iterator[Vector]:
    """Yield the vectors whose first number that is not 0 is 1: one of those that differ by a factor."""
    for vector in itertools.product(range(levels), repeat=length):
        if any(vector) and vector == _normalise(vector, levels):
            yield vector


def _normalise(vector: Vector, levels: int) -> Vector:
    """Return a vector divided by its first number that is not 0, modulo `levels`.

    >>> _normalise((0, 2, 1), 3)
    (0, 1, 2)
    """
    first = next((number for number in vector if number), 1)
    return tuple(number * pow(first, -1, levels) % levels for number in vector)


def _spell(effect: Vector, names: Sequence[str], between: str = " x ") -> str:
    """Return an effect as text.

    >>> _spell((1, 0, 2), ["backbone", "size", "augment"])
    'backbone x augment^2'
    """
    parts = [(name, number) for name, number in zip(names, effect, strict=True) if number]
    if between == " + ":
        return between.join(name if number == 1 else f"{number} {name}" for name, number in parts)
    return between.join(name if number == 1 else f"{name}^{number}" for name, number in parts)
