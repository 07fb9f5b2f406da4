"""What `trainer.decide` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from shards.cli.arguments import check_count, check_share
from shards.cli.options import Location, Options
from shards.errors import UsageError
from trainer.contract.decision.conformal import Kind
from trainer.contract.decision.operating_point import parse_rule

_SHARES = ("conformal", "ood", "abstain_below")
_COMPANIONS = (
    ("positive", "point", "--point 'recall>=0.98'"),
    ("conformal_score", "conformal", "--conformal 0.9"),
    ("conformal_by", "conformal", "--conformal 0.9"),
    ("ood_fit", "ood", "--ood 0.95"),
    ("ood_score", "ood", "--ood 0.95"),
    ("train_prior", "deploy_prior", "--deploy-prior CLASS=SHARE"),
)
"""An option that was given, the one that it needs, and how to write that."""
_ALONE = {"show": set[str](), "reset": {"out"}, "check": {"data", "workers"}}
"""What does no fitting, and what else it takes."""


class DecideOptions(Options):
    """What a decision shall have, where it is fitted and stored; or, in place of that, `show`, `check` or `reset`.

    Raises:
        UsageError: Options that contradict one another, or a value that is none.
    """

    bundle: Path
    """Folder of the bundle."""
    data: Location | None = None
    """The dataset, and the split: data/elpv-shards:val; without a name val, for `check` test."""
    temperature: bool = True
    """Fit one number that makes probabilities as sure as they may be."""
    point: str | None = None
    """Goal of the operating point, as `parse_rule` reads it; None: the most probable class, or each from 0.5 on."""
    positive: str | None = None
    """The class that `point` is about; None: what bundle or dataset say."""
    conformal: float | None = None
    """Share of pictures whose set holds the true class, in (0, 1)."""
    conformal_score: Kind = "lac"
    """lac: smallest sets on average; aps: larger ones where the model hesitates."""
    conformal_by: Literal["all", "class"] = "all"
    """all: the promise holds on average over all pictures. class: for the pictures of each class; sets are larger."""
    ood: float | None = None
    """Share of pictures that are near enough to training's, in (0, 1); the others are abstained from."""
    ood_score: Literal["residual", "mahalanobis"] = "residual"
    """residual: what lies outside the main directions of features. mahalanobis: the distance to the nearest class."""
    ood_fit: Literal["train", "same"] = "train"
    """Pictures that the score compares with: train's, or half of those of `data`."""
    abstain_below: float | None = None
    """Abstain where no class has this probability, in (0, 1)."""
    deploy_prior: str | None = None
    """Class shares where the model is used, CLASS=SHARE,...; classes not named share the rest."""
    train_prior: str | None = None
    """Class shares that the model learned, likewise; None: those of train."""
    out: Path | None = None
    """Folder for a copy of the bundle; None: the bundle itself is changed."""
    workers: int = 2
    """Threads that decode."""
    show: bool = False
    """Read the stored decision and change nothing."""
    check: bool = False
    """Count what the stored decision gives on `data`, and change nothing."""
    reset: bool = False
    """Go back to the most probable class, by plain softmax."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = {name for name in self.model_fields_set if getattr(self, name) is not None}
        given -= {"bundle", *(name for name in _ALONE if not getattr(self, name))}
        does = next((name for name in _ALONE if name in given), None)
        if does is not None and (other := next(iter(sorted(given - {does} - _ALONE[does])), None)):
            raise UsageError(f"--{does} goes without {_spell(other)}; leave one of the two out")
        if does in ("show", "reset"):
            return self
        if self.data is None:
            raise UsageError("name the dataset and its part, such as data/elpv-shards:val")
        for name, needed, spelt in _COMPANIONS:
            if name in given and needed not in given:
                raise UsageError(f"{_spell(name)} says nothing alone; give {spelt} with it")
        if self.point is not None:
            parse_rule(self.point)
        for name in _SHARES:
            check_share(_spell(name), getattr(self, name))
        check_count("--workers", self.workers, of="threads")
        return self


def _spell(name: str) -> str:
    return "DATA" if name == "data" else f"--{name.replace('_', '-')}"
