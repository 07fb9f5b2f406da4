"""Search spaces: ranges of options, and the trials that are drawn from them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, model_validator

from shards.errors import UsageError
from trainer.recipes.options.section import Section

if TYPE_CHECKING:
    import optuna

_KINDS = ("choice", "uniform", "loguniform", "int", "quantised")


class Range(Section):
    """The values that a search tries of one option: exactly one kind, and perhaps a condition."""

    choice: list[Any] | None = None
    """Values to choose from, each as likely."""
    uniform: tuple[float, float] | None = None
    """Lowest and highest number, all between them as likely."""
    loguniform: tuple[float, float] | None = None
    """Lowest and highest number, both above 0; each power of ten between them is as likely."""
    int_: tuple[int, int] | None = Field(default=None, alias="int")
    """Lowest and highest whole number, both included."""
    quantised: tuple[float, float, float] | None = None
    """Lowest number, highest, and the step between two values."""
    when: dict[str, Any] = Field(default_factory=dict)
    """{option: value}: set this option only in trials whose other option has this value."""

    @model_validator(mode="after")
    def _one_kind(self) -> Range:
        given = [name for name in _KINDS if self._find(name) is not None]
        if len(given) != 1:
            raise ValueError(f"a range has exactly one of {', '.join(_KINDS)}, got {', '.join(given) or 'none'}")
        values = self._find(given[0])
        if given[0] == "choice" and not values:
            raise ValueError("choice has no values")
        if given[0] != "choice" and not values[0] < values[1]:
            raise ValueError(f"{given[0]} goes from the lower to the higher number, got {list(values)}")
        if self.loguniform is not None and self.loguniform[0] <= 0:
            raise ValueError(f"loguniform needs numbers above 0, got {list(self.loguniform)}")
        if self.quantised is not None and not 0 < self.quantised[2] <= self.quantised[1] - self.quantised[0]:
            raise ValueError(f"the step of quantised is above 0 and no wider than its range, got {self.quantised[2]}")
        return self

    def _find(self, name: str) -> Any:
        return self.int_ if name == "int" else getattr(self, name)

    def list_values(self) -> list[Any]:
        """Return all values.

        Raises:
            UsageError: They cannot be counted.
        """
        if self.choice is not None:
            return self.choice
        if self.int_ is not None:
            return list(range(self.int_[0], self.int_[1] + 1))
        if self.quantised is not None:
            low, high, step = self.quantised
            return [_trim(low + step * number) for number in range(math.floor((high - low) / step + 1e-9) + 1)]
        raise UsageError("uniform and loguniform have no grid; give choice or quantised, or searcher: random")

    def draw(self, rng: np.random.Generator) -> Any:
        """Return one value."""
        if self.uniform is not None:
            return _trim(float(rng.uniform(*self.uniform)))
        if self.loguniform is not None:
            low, high = map(math.log, self.loguniform)
            return _trim(math.exp(rng.uniform(low, high)))
        values = self.list_values()
        return values[int(rng.integers(len(values)))]

    def suggest(self, trial: optuna.Trial, option: str) -> Any:
        """Return the value that an Optuna study proposes; values that can be counted are proposed by position."""
        if self.choice is not None:  # Optuna's own choices cannot be lists
            return self.choice[trial.suggest_categorical(option, range(len(self.choice)))]
        if self.uniform is not None:
            return self._fit(trial.suggest_float(option, *self.uniform), self.uniform)
        if self.loguniform is not None:
            return self._fit(trial.suggest_float(option, *self.loguniform, log=True), self.loguniform)
        values = self.list_values()
        return values[trial.suggest_int(option, 0, len(values) - 1)]

    def encode(self, value: Any) -> Any:
        """Return what the study proposed for a value."""
        return value if self.uniform is not None or self.loguniform is not None else self.list_values().index(value)

    @property
    def ends(self) -> list[Any]:
        """Every value of a choice, otherwise the lowest and the highest."""
        if self.choice is not None:
            return self.choice
        bounds = self.uniform or self.loguniform or self.int_
        return list(bounds) if bounds is not None else self.list_values()[:: len(self.list_values()) - 1]

    def holds(self, value: Any) -> bool:
        """Return whether a value is in the range."""
        bounds = self.uniform or self.loguniform
        return bounds[0] <= value <= bounds[1] if bounds is not None else value in self.list_values()

    @staticmethod
    def _fit(value: float, bounds: tuple[float, float]) -> float:
        """Return a rounded number that is still within its bounds."""
        return min(max(_trim(value), bounds[0]), bounds[1])


def _trim(value: float) -> float:
    """Return a number with 4 significant digits, so that recipes and names stay readable.

    >>> _trim(0.00123456), _trim(0.30000000000000004)
    (0.001235, 0.3)
    """
    return float(f"{value:.4g}")


def draw_trials(search: Mapping[str, Range], count: int, seed: int) -> list[dict[str, Any]]:
    """Return random values of the options for each of `count` different trials; more leave the first as they are.

    Raises:
        UsageError: There are fewer different trials than `count`.
    """
    rng = np.random.default_rng([seed, 0x5EA2C4])
    drawn: list[dict[str, Any]] = []
    for _ in range(100 * count):
        if len(drawn) == count:
            break
        values = _drop_conditional({option: each.draw(rng) for option, each in search.items()}, search)
        if values not in drawn:
            drawn.append(values)
    if len(drawn) < count:
        raise UsageError(f"the search has only {len(drawn)} different trials, and trials: {count} are asked for")
    return drawn


def list_grid(search: Mapping[str, Range]) -> list[dict[str, Any]]:
    """Return every combination of the values of the options, each once.

    Raises:
        UsageError: A range has no grid.
    """
    names = list(search)
    found: list[dict[str, Any]] = []
    for values in itertools.product(*(search[name].list_values() for name in names)):
        kept = _drop_conditional(dict(zip(names, values, strict=True)), search)
        if kept not in found:
            found.append(kept)
    return found


def list_probes(search: Mapping[str, Range]) -> list[dict[str, Any]]:
    """Return trials, before a search that learns has suggested any, that have each end of each range among them."""

    def set_conditions(option: str) -> dict[str, Any]:
        when = search[option].when
        return {name: value for other in when for name, value in set_conditions(other).items()} | when

    return [{**set_conditions(option), option: value} for option, each in search.items() for value in each.ends]


def _drop_conditional(values: dict[str, Any], search: Mapping[str, Range]) -> dict[str, Any]:
    """Return the values without options whose condition does not hold."""
    kept: dict[str, Any] = {}
    for option in order_options(search):
        if all(kept.get(other) == wanted for other, wanted in search[option].when.items()):
            kept[option] = values[option]
    return {option: kept[option] for option in search if option in kept}


def order_options(search: Mapping[str, Range]) -> list[str]:
    """Return the options, each after those that its condition names.

    Raises:
        ValueError: Conditions name each other in a circle.
    """
    try:
        return list(TopologicalSorter({option: each.when.keys() for option, each in search.items()}).static_order())
    except CycleError as err:
        circle = " -> ".join(err.args[1])
        raise ValueError(f"the conditions of search name each other in a circle, {circle}; remove one `when`") from err


def check_conditions(search: Mapping[str, Range]) -> None:
    """Raise ValueError if a condition names an option that is not searched, or if conditions form a circle."""
    for option, each in search.items():
        for other in each.when:
            if other not in search or other == option:
                raise ValueError(f"{option}: when names {other}, which is not among the searched options")
    order_options(search)
