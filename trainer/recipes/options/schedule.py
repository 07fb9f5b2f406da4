"""The learning rate over the run."""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from trainer.recipes.options.choice import REQUIRED, ChoiceSection, Uses, settle

_USES: Final[Uses] = {
    "constant": {},
    "step": {"step_epochs": 10.0, "gamma": 0.1, "staircase": True},
    "multistep": {"milestones": REQUIRED, "gamma": 0.1},
    "cosine": {"final_frac": 0.0},
    "sgdr": {"first_epochs": 10.0, "mult": 2, "final_frac": 0.0},
    "exponential": {"gamma": REQUIRED, "staircase": True},
    "natural_exp": {"gamma": REQUIRED, "staircase": True},
    "one_cycle": {"start_div": 25.0, "end_div": 1e4},
    "polynomial": {"power": 1.0, "final_frac": 0.0},
    "plateau": {"factor": 0.1, "patience": 10, "threshold": 1e-4, "final_frac": 0.0},
}
_FACTORS: Final = ("step", "multistep", "exponential")
"""Schedules that multiply by gamma; natural_exp has it in the exponent."""

_NUMBER: Final = r"(\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?)"
_FORMS: Final = {
    "default-0.5-3": (rf"default-{_NUMBER}-(\d+)", "plateau", ("factor", "patience")),
    "step-20-0.1": (rf"step-{_NUMBER}-{_NUMBER}", "step", ("step_epochs", "gamma")),
    "multi-30,60-0.1": (rf"multi-([\d.,]+)-{_NUMBER}", "multistep", ("milestones", "gamma")),
    "SGDR-5-2": (rf"sgdr-{_NUMBER}-(\d+)", "sgdr", ("first_epochs", "mult")),
}


class ScheduleOptions(ChoiceSection):
    """Learning rate as a function of samples seen; as one word, too: step-20-0.1, see parse_schedule."""

    name: Literal[
        "constant", "step", "multistep", "cosine", "sgdr", "exponential", "natural_exp", "one_cycle", "polynomial",
        "plateau",
    ] = "cosine"  # fmt: skip
    """Options below that a schedule does not use are null."""
    warmup_frac: float = Field(default=0.1, ge=0, lt=1)
    """Share of the run in which the rate rises linearly from 0, by default 0.1, or 0 beside warmup_epochs; one_cycle
    rises by a cosine, by default in 0.3."""
    warmup_epochs: float | None = Field(default=None, gt=0)
    """The same in epochs, in the place of warmup_frac."""
    gamma: float | None = Field(default=None, gt=0)
    """step, multistep, exponential: factor, below 1. natural_exp: exponent per epoch."""
    step_epochs: float | None = Field(default=None, gt=0)
    """step: epochs between two multiplications by gamma."""
    milestones: list[float] | None = None
    """multistep: epochs, ascending, at which the rate is multiplied by gamma."""
    staircase: bool | None = None
    """step, exponential, natural_exp: fall at whole steps (of step_epochs, of an epoch); false falls with each sample
    along the curve through them."""
    first_epochs: float | None = Field(default=None, gt=0)
    """sgdr: epochs from the end of warm-up to the first restart."""
    mult: int | None = Field(default=None, ge=1)
    """sgdr: each period is this many times as long as the one before."""
    start_div: float | None = Field(default=None, ge=1)
    """one_cycle: peak by the rate of the first step."""
    end_div: float | None = Field(default=None, ge=1)
    """one_cycle: rate of the first step by that at the end."""
    power: float | None = Field(default=None, gt=0)
    """polynomial: 1 falls in a straight line."""
    factor: float | None = Field(default=None, gt=0, lt=1)
    """plateau: what the rate is multiplied by."""
    patience: int | None = Field(default=None, ge=0)
    """plateau: epochs without a better value that are let pass; the rate falls after one more."""
    threshold: float | None = Field(default=None, ge=0, lt=1)
    """plateau: least change that counts as better, as a share of the best value."""
    final_frac: float | None = Field(default=None, ge=0, le=1)
    """Share of the peak that is left: at the end of cosine and polynomial, and of each period of sgdr; at least by
    plateau."""

    @classmethod
    def _open(cls, given: Any) -> Any:
        return parse_schedule(given) if isinstance(given, str) else given

    @classmethod
    def _settle(cls, values: dict[str, Any]) -> dict[str, Any]:
        name = values.get("name", cls.model_fields["name"].default)
        return _settle_warmup(settle(values, name, _USES), name)

    @model_validator(mode="after")
    def _falls(self) -> ScheduleOptions:
        if self.name in _FACTORS and self.gamma is not None and self.gamma >= 1:
            raise ValueError(f"{self.name} multiplies by gamma, which is below 1, got {self.gamma:g}")
        if self.milestones is not None:
            ascending = all(low < high for low, high in zip([0.0, *self.milestones], self.milestones, strict=False))
            if not self.milestones or not ascending:
                raise ValueError(f"milestones are epochs above 0 in ascending order, got {self.milestones}")
        return self


def _settle_warmup(values: dict[str, Any], name: object) -> dict[str, Any]:
    share, epochs = values.get("warmup_frac"), values.get("warmup_epochs")
    usual = 0.3 if name == "one_cycle" else 0.1
    if share is None or (epochs is not None and share == usual):
        return values | {"warmup_frac": usual if epochs is None else 0.0}
    if epochs is not None and share != 0:
        raise ValueError(
            f"the warm-up is given twice, got warmup_frac={share} and warmup_epochs={epochs}; set one of them to null"
        )
    return values


def parse_schedule(text: str) -> dict[str, Any]:
    """Return the options that a schedule in one word stands for: its name, or a form of the tutorials without warm-up.

    Raises:
        ValueError: No such form; the message has those that exist.

    >>> parse_schedule("step-20-0.1")
    {'name': 'step', 'warmup_frac': 0.0, 'step_epochs': '20', 'gamma': '0.1'}
    >>> parse_schedule("multi-30,60-0.1")
    {'name': 'multistep', 'warmup_frac': 0.0, 'milestones': ['30', '60'], 'gamma': '0.1'}
    >>> parse_schedule("cosine")
    {'name': 'cosine'}
    """
    if text in _USES:
        return {"name": text}
    for pattern, name, options in _FORMS.values():
        found = re.fullmatch(pattern, text, re.IGNORECASE)
        if found:
            numbers = dict(zip(options, found.groups(), strict=True))
            listed = {"milestones": numbers["milestones"].split(",")} if "milestones" in numbers else {}
            return {"name": name, "warmup_frac": 0.0, **numbers, **listed}
    forms = ", ".join(f"{form} ({name}: {', '.join(options)})" for form, (_, name, options) in _FORMS.items())
    raise ValueError(f"no schedule '{text}': in one word it is {forms}, or one of {', '.join(_USES)}, got '{text}'")
