"""The space of a sweep, as its YAML file has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from shards.cli.sentences import suggest
from shards.errors import UsageError
from trainer.recipes.options.section import Section
from tune.space.design import Fraction, make_fraction
from tune.space.search import Range, check_conditions, draw_trials, list_grid

Budget = int | float
_FIXED = {
    "name": "the sweep names its runs",
    "launch": "the sweep places its trials",
    "num_ranks": "the space sets it for all trials, as ranks_per_trial",
    "storage": "trials lie in the folder of the sweep; give it as an option of the command",
    "data": "trials on different data cannot be compared",
    "seed": "seeds are those of `confirm`",
    "evaluate_on": "the test split is opened once, after the choice",
    "stop.metric": "trials that are judged by different metrics cannot be compared",
    "track.group": "W&B groups the runs of a sweep by its name",
}
"""Option that no level may set -> why."""


class Screen(Section):
    """A first look at every variant, judged on the validation split alone."""

    budget: Budget | None = Field(default=None, gt=0)
    """Epochs of a trial: a whole number, or a share below 1 of the recipe's epochs. None: all of them."""
    stop: Literal["asha", "median", "none"] = "asha"
    """How trials that fall behind are stopped early. asha: at each rung, only the best 1/reduction_factor continue;
    median: those below the median of the others stop; none: all run to the end."""
    grace_epochs: int = Field(default=1, ge=1)
    """Epochs that every trial gets before it may be stopped early."""
    reduction_factor: int = Field(default=2, ge=2)
    """At each rung of asha, the best 1/reduction_factor of the trials so far continue."""

    @field_validator("budget")
    @classmethod
    def _whole_or_share(cls, value: Budget | None) -> Budget | None:
        if isinstance(value, float) and value > 1 and not value.is_integer():
            raise ValueError("a budget is a whole number of epochs, or a share below 1")
        return int(value) if isinstance(value, float) and value > 1 else value

    def find_epochs(self, epochs: int) -> int:
        """Return the epochs of a trial whose recipe has `epochs`.

        >>> [Screen(budget=budget).find_epochs(24) for budget in (None, 8, 0.25, 100, 0.001)]
        [24, 8, 6, 24, 1]
        """
        if self.budget is None:
            return epochs
        wanted = round(self.budget * epochs) if isinstance(self.budget, float) else self.budget
        return max(1, min(epochs, wanted))


class Confirm(Section):
    """Runs that decide: the best variants of the screen and the baseline, to the end, with fresh seeds.

    Which they are is written down before the test split is opened, once for all of them.
    """

    top: int = Field(default=3, ge=1)
    """Number of variants to confirm, besides the baseline."""
    seeds: int = Field(default=3, ge=2)
    """Runs of each variant, which differ only in their seeds; `--seeds` of the command takes precedence."""


class Space(Section):
    """An ablation (`factors`) or a search (`search`): variants to screen, and to confirm if `confirm` is given."""

    factors: dict[str, dict[str, dict[str, Any]]] = Field(default_factory=dict)
    """{factor: {level: {recipe option: value}}}; a combination of levels is a variant."""
    search: dict[str, Range] = Field(default_factory=dict)
    """{recipe option: {KIND: values}}, instead of factors; KIND is choice, uniform, loguniform, int or quantised, and
    `when: {option: value}` makes one depend on another. The recipe itself is the baseline."""
    searcher: Literal["random", "grid", "tpe"] = "random"
    """How trials of a search are chosen. random: drawn; grid: every combination of values that can be counted; tpe:
    each learns from the scores of those before it (Optuna)."""
    trials: int | None = Field(default=None, ge=1)
    """Number of trials of a search, for random and tpe."""
    baseline: dict[str, str] = Field(default_factory=dict)
    """{factor: level} of the variant that the others are compared with; unnamed factors have their first level."""
    design: Literal["full", "one_factor", "fractional"] = "full"
    """Which combinations are tried. full: all; one_factor: the baseline, and those that differ from it in one factor;
    fractional: the smallest regular fraction of `resolution`, for factors with 2 or 3 levels."""
    resolution: int = Field(default=3, ge=3)
    """For design=fractional: 3 keeps main effects apart from each other, 4 also from interactions of two factors, 5
    those from each other as well."""
    generators: dict[str, list[str]] | None = None
    """For design=fractional: {factor: factors whose levels it follows as a sum}; None: the best ones are chosen."""
    screen: Screen = Screen()
    confirm: Confirm | None = None
    """Which variants are confirmed with how many seeds; None: none is, and the best trial of the screen is kept."""
    ranks_per_trial: int = Field(default=1, ge=1)
    """Processes that train a trial together, through Ray Train. As many trials run at a time as the cluster has room
    for all of their ranks."""
    cpus_per_trial: float = Field(default=1.0, gt=0)
    """CPUs that Ray reserves for a trial, and its torch threads; with several ranks, for each of them."""
    gpus_per_trial: float = Field(default=0.0, ge=0)
    """GPUs that Ray reserves for a trial, or for each of its ranks. With a fraction, trials of one rank share a GPU."""

    @field_validator("factors")
    @classmethod
    def _read_factors(cls, value: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, dict[str, Any]]]:
        for name, levels in value.items():
            if not levels:
                raise ValueError(f"factor '{name}' has no levels")
            for each in (name, *levels):
                if not each or any(character in each for character in "/\\\0") or each.startswith("."):
                    raise ValueError(f"'{each}' cannot be a part of a folder's name; rename it, without slashes")
            for level, changes in levels.items():
                _refuse_fixed(f"level '{level}' of factor '{name}'", changes)
        return value

    @model_validator(mode="after")
    def _is_one(self) -> Space:
        if bool(self.factors) == bool(self.search):
            raise ValueError("a space has either factors or search; give one of them")
        if self.search and (self.baseline or self.design != "full"):
            raise ValueError("baseline and design are for factors; a search compares with the recipe itself")
        if self.search and self.searcher != "grid" and self.trials is None:
            raise ValueError(f"searcher: {self.searcher} needs trials, the number of trials")
        if self.trials is not None and (not self.search or self.searcher == "grid"):
            raise ValueError("trials is for a search with searcher: random or tpe; leave it out")
        check_conditions(self.search)
        for option in self.search:
            _refuse_fixed("search", {option: None})
        try:
            self.list_searched(0)
        except UsageError as err:
            raise ValueError(str(err)) from err
        return self

    def list_searched(self, seed: int) -> list[dict[str, Any]]:
        """Return the options of each trial of a search; none of one that learns, whose trials are not known yet."""
        if not self.search or self.searcher == "tpe":
            return []
        return list_grid(self.search) if self.searcher == "grid" else draw_trials(self.search, self.trials or 1, seed)

    @model_validator(mode="after")
    def _has_whole_gpus(self) -> Space:
        if self.ranks_per_trial > 1 and not float(self.gpus_per_trial).is_integer():
            raise ValueError(
                f"ranks of one trial cannot share a GPU, got gpus_per_trial={self.gpus_per_trial:g} with "
                f"ranks_per_trial={self.ranks_per_trial}; give each rank a whole GPU, or set ranks_per_trial=1"
            )
        return self

    @model_validator(mode="after")
    def _fits(self) -> Space:
        for factor, level in self.baseline.items():
            if factor not in self.factors:
                raise ValueError(f"baseline: there is no factor '{factor}'{_offer(factor, self.factors)}")
            if level not in self.factors[factor]:
                levels = self.factors[factor]
                raise ValueError(f"baseline: factor '{factor}' has no level '{level}'{_offer(level, levels)}")
        if self.design != "fractional" and self.generators is not None:
            raise ValueError(f"generators are for design: fractional, got design: {self.design}; leave them out")
        if self.design == "fractional":
            try:
                self.make_fraction()
            except UsageError as err:
                raise ValueError(str(err)) from err
        return self

    @property
    def base(self) -> dict[str, str]:
        """The level of each factor in the baseline."""
        return {factor: self.baseline.get(factor, next(iter(levels))) for factor, levels in self.factors.items()}

    def order_levels(self) -> dict[str, list[str]]:
        """Return the levels of each factor, the baseline's first."""
        base = self.base
        return {
            factor: [base[factor], *(level for level in levels if level != base[factor])]
            for factor, levels in self.factors.items()
        }

    def make_fraction(self) -> Fraction:
        """Return the fraction that design=fractional tries; raises UsageError like `design.make_fraction`."""
        sizes = {factor: len(levels) for factor, levels in self.factors.items()}
        return make_fraction(sizes, self.resolution, self.generators)


def _refuse_fixed(where: str, changes: Mapping[str, Any]) -> None:
    for option in _flatten(changes):
        for fixed, why in _FIXED.items():
            if option == fixed or option.startswith(f"{fixed}."):
                raise ValueError(f"{where} sets {option}, which no level may: {why}")


def _flatten(changes: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names of the options that a level sets.

    >>> _flatten({"optim.peak_lr": 1, "stop": {"metric": "auroc"}})
    ['optim.peak_lr', 'stop.metric']
    """
    names = []
    for name, value in changes.items():
        names += _flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else [f"{prefix}{name}"]
    return names


def _offer(name: str, known: Mapping[str, Any]) -> str:
    return suggest(name, known, otherwise=f"; there are {', '.join(known)}")
