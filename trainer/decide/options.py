"""Options of `trainer.decide`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from shards.cli.arguments import check_count, check_share
from shards.cli.options import Location, Options, Output
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
"""An option, the option it requires, and how to write that."""
_ALONE = {"show": set[str](), "reset": {"out"}, "check": {"data", "workers"}}
"""Actions that fit nothing, and the options they allow."""


class DecideOptions(Options):
    """The requested decision, where to fit and store it; or `show`, `check` or `reset` instead.

    Raises:
        UsageError: Options contradict each other, or a value is invalid.
    """

    bundle: Path
    """Folder of the bundle."""
    data: Location | None = None
    """The dataset, and the split: data/elpv-shards:val; default val, for `check` test."""
    temperature: bool = True
    """Fit a temperature that calibrates the probabilities."""
    point: str | None = None
    """Goal of the operating point, as `parse_rule` reads it; None: the most probable class, or each from 0.5 on."""
    positive: str | None = None
    """The class for `point`; None: that of the bundle or dataset."""
    conformal: float | None = None
    """Probability that the conformal set holds the true class, in (0, 1)."""
    conformal_score: Kind = "lac"
    """lac: smallest sets on average; aps: larger ones if the model is uncertain."""
    conformal_by: Literal["all", "class"] = "all"
    """all: the level holds on average over all pictures. class: for the pictures of each class; sets are larger."""
    ood: float | None = None
    """Share of pictures that count as in distribution, in (0, 1); the model abstains from the others."""
    ood_score: Literal["residual", "mahalanobis"] = "residual"
    """residual: the component outside the main directions of features. mahalanobis: the distance to the nearest
    class."""
    ood_fit: Literal["train", "same"] = "train"
    """Pictures that the score compares with: train's, or half of those of `data`."""
    abstain_below: float | None = None
    """Abstain if no class has this probability, in (0, 1)."""
    deploy_prior: str | None = None
    """Class shares at deployment, CLASS=SHARE,...; unnamed classes share the rest."""
    train_prior: str | None = None
    """Class shares in training, CLASS=SHARE,...; None: those of train."""
    out: Output | None = None
    """Folder for a copy of the bundle; None: the bundle itself is changed."""
    workers: int = 2
    """Decoding threads."""
    show: bool = False
    """Show the stored decision and change nothing."""
    check: bool = False
    """Evaluate the stored decision on `data`, and change nothing."""
    reset: bool = False
    """Return to the most probable class, by plain softmax."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = {name for name in self.model_fields_set if getattr(self, name) is not None}
        given -= {"bundle", *(name for name in _ALONE if not getattr(self, name))}
        does = next((name for name in _ALONE if name in given), None)
        if does is not None and (other := next(iter(sorted(given - {does} - _ALONE[does])), None)):
            raise UsageError(f"--{does} cannot be combined with {_spell(other)}; remove one of the two")
        if does in ("show", "reset"):
            return self
        if self.data is None:
            raise UsageError("name the dataset and its split, such as data/elpv-shards:val")
        for name, needed, spelt in _COMPANIONS:
            if name in given and needed not in given:
                raise UsageError(f"{_spell(name)} has no effect alone; add {spelt}")
        if self.point is not None:
            parse_rule(self.point)
        for name in _SHARES:
            check_share(_spell(name), getattr(self, name))
        check_count("--workers", self.workers, of="threads")
        return self


def _spell(name: str) -> str:
    return "DATA" if name == "data" else f"--{name.replace('_', '-')}"
