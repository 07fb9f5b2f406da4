"""The learning rate over the run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, model_validator

from shards.cli.table import Row, Table
from trainer.recipes.options.choice import REQUIRED, ChoiceSection, list_uses, settle


@dataclass(frozen=True)
class Form:
    """A short form of a schedule and its options in one word, as in tutorials; without warm-up."""

    example: str
    pattern: str
    """Regular expression with a group for each option."""
    options: tuple[str, ...]


@dataclass(frozen=True)
class ScheduleRow(Row):
    """A schedule. Its builder takes the position in the run and keyword options; it returns the share of the peak."""

    warmup_frac: float = 0.1
    """Default of warmup_frac."""
    rises: bool = True
    """Whether a linear warm-up multiplies it; otherwise it has its own warm-up."""
    shrinks: bool = False
    """Whether gamma is a factor, which must be below 1."""
    spans_run: bool = False
    """Whether rates depend on the length of the run, so that a run cannot be extended."""
    watch: str = ""
    """Function that updates the schedule with the metric after each epoch: takes its state, the value, whether lower is
    better, and the same options. Empty: the schedule does not use the metric."""
    form: Form | None = None


_NUMBER: Final = r"(\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?)"

SCHEDULES: Final = Table(
    "schedules",
    ScheduleRow("constant", "stays at the peak", "trainer.step.schedule:follow_constant"),
    ScheduleRow(
        "step", "multiplied by gamma every step_epochs",
        "trainer.step.schedule:follow_step", {"step_epochs": 10.0, "gamma": 0.1, "staircase": True}, shrinks=True,
        form=Form("step-20-0.1", rf"step-{_NUMBER}-{_NUMBER}", ("step_epochs", "gamma")),
    ),
    ScheduleRow(
        "multistep", "multiplied by gamma at each of the milestones, in epochs",
        "trainer.step.schedule:follow_multistep", {"milestones": REQUIRED, "gamma": 0.1}, shrinks=True,
        form=Form("multi-30,60-0.1", rf"multi-([\d.,]+)-{_NUMBER}", ("milestones", "gamma")),
    ),
    ScheduleRow(
        "cosine", "half a cosine from the end of warm-up to the end of the run",
        "trainer.step.schedule:follow_cosine", {"final_frac": 0.0}, spans_run=True,
    ),
    ScheduleRow(
        "sgdr", "cosines with restarts, each mult times as long as the one before",
        "trainer.step.schedule:follow_sgdr", {"first_epochs": 10.0, "mult": 2, "final_frac": 0.0},
        form=Form("SGDR-5-2", rf"sgdr-{_NUMBER}-(\d+)", ("first_epochs", "mult")),
    ),
    ScheduleRow(
        "exponential", "multiplied by gamma every epoch",
        "trainer.step.schedule:follow_exponential", {"gamma": REQUIRED, "staircase": True}, shrinks=True,
    ),
    ScheduleRow(
        "natural_exp", "multiplied by exp(-gamma) every epoch",
        "trainer.step.schedule:follow_natural_exp", {"gamma": REQUIRED, "staircase": True},
    ),
    ScheduleRow(
        "one_cycle", "rises by half a cosine, then falls by another to far below the start",
        "trainer.step.schedule:follow_one_cycle", {"start_div": 25.0, "end_div": 1e4}, warmup_frac=0.3, rises=False,
        spans_run=True,
    ),
    ScheduleRow(
        "polynomial", "a power of the remaining share of the run after warm-up; power 1 falls linearly",
        "trainer.step.schedule:follow_polynomial", {"power": 1.0, "final_frac": 0.0}, spans_run=True,
    ),
    ScheduleRow(
        "plateau", "multiplied by factor after more than patience epochs without a better value of the metric",
        "trainer.step.schedule:follow_plateau",
        {"factor": 0.1, "patience": 10, "threshold": 1e-4, "final_frac": 0.0},
        watch="trainer.step.schedule:update_plateau",
        form=Form("default-0.5-3", rf"default-{_NUMBER}-(\d+)", ("factor", "patience")),
    ),
)  # fmt: skip


class ScheduleOptions(ChoiceSection):
    """Learning rate as a function of samples seen; may be written as one word, such as step-20-0.1."""

    name: Annotated[str, BeforeValidator(SCHEDULES.check)] = "cosine"
    """Name of the schedule. Options that it does not use are null."""
    warmup_frac: float = Field(default=0.1, ge=0, lt=1)
    """Share of the run in which the rate rises linearly from 0; 0 if warmup_epochs is set. one_cycle rises by half a
    cosine, by default over 0.3 of the run."""
    warmup_epochs: float | None = Field(default=None, gt=0)
    """Length of the warm-up in epochs, instead of warmup_frac."""
    gamma: float | None = Field(default=None, gt=0)
    """Factor by which the rate falls, below 1; for natural_exp the exponent per epoch."""
    step_epochs: float | None = Field(default=None, gt=0)
    """Epochs between two multiplications by gamma."""
    milestones: list[float] | None = None
    """Epochs, ascending, at which the rate is multiplied by gamma."""
    staircase: bool | None = None
    """Fall in steps (at each step_epochs, at each epoch); false: fall with each sample along the curve through these
    points."""
    first_epochs: float | None = Field(default=None, gt=0)
    """Epochs from the end of warm-up to the first restart."""
    mult: int | None = Field(default=None, ge=1)
    """Each period is this many times as long as the one before."""
    start_div: float | None = Field(default=None, ge=1)
    """Peak rate divided by the rate of the first step."""
    end_div: float | None = Field(default=None, ge=1)
    """Rate of the first step divided by that of the last."""
    power: float | None = Field(default=None, gt=0)
    """Power of the remaining share of the run; 1 falls linearly."""
    factor: float | None = Field(default=None, gt=0, lt=1)
    """Factor by which the rate is multiplied when the metric has not improved."""
    patience: int | None = Field(default=None, ge=0)
    """Number of epochs without a better value before the rate falls at the next one."""
    threshold: float | None = Field(default=None, ge=0, lt=1)
    """Smallest change that counts as better, as a share of the best value."""
    final_frac: float | None = Field(default=None, ge=0, le=1)
    """Lowest rate as a share of the peak: at the end of cosine and polynomial, at the end of each period of sgdr, and
    the lower limit of plateau."""

    @classmethod
    def _open(cls, given: Any) -> Any:
        return parse_schedule(given) if isinstance(given, str) else given

    @classmethod
    def _settle(cls, values: dict[str, Any]) -> dict[str, Any]:
        name = values.get("name", cls.model_fields["name"].default)
        return _settle_warmup(settle(values, name, list_uses(SCHEDULES)), name)

    @model_validator(mode="after")
    def _falls(self) -> ScheduleOptions:
        if SCHEDULES[self.name].shrinks and self.gamma is not None and self.gamma >= 1:
            raise ValueError(f"{self.name} multiplies by gamma, which must be below 1, got {self.gamma:g}")
        if self.milestones is not None:
            ascending = all(low < high for low, high in zip([0.0, *self.milestones], self.milestones, strict=False))
            if not self.milestones or not ascending:
                raise ValueError(f"milestones must be ascending epochs above 0, got {self.milestones}")
        return self


def _settle_warmup(values: dict[str, Any], name: object) -> dict[str, Any]:
    share, epochs = values.get("warmup_frac"), values.get("warmup_epochs")
    usual = SCHEDULES[name].warmup_frac if isinstance(name, str) and name in SCHEDULES else ScheduleRow.warmup_frac
    if share is None or (epochs is not None and share == usual):
        return values | {"warmup_frac": usual if epochs is None else 0.0}
    if epochs is not None and share != 0:
        raise ValueError(
            f"the warm-up is set twice, got warmup_frac={share} and warmup_epochs={epochs}; set one of them to null"
        )
    return values


def parse_schedule(text: str) -> dict[str, Any]:
    """Expand a schedule in one word to its options: its name, or a short form from tutorials, without warm-up.

    Raises:
        ValueError: Unknown form; the message lists the known ones.

    >>> parse_schedule("step-20-0.1")
    {'name': 'step', 'warmup_frac': 0.0, 'step_epochs': '20', 'gamma': '0.1'}
    >>> parse_schedule("multi-30,60-0.1")
    {'name': 'multistep', 'warmup_frac': 0.0, 'milestones': ['30', '60'], 'gamma': '0.1'}
    >>> parse_schedule("cosine")
    {'name': 'cosine'}
    """
    if text in SCHEDULES:
        return {"name": text}
    forms = {name: row.form for name, row in SCHEDULES.items() if row.form}
    for name, form in forms.items():
        found = re.fullmatch(form.pattern, text, re.IGNORECASE)
        if found:
            numbers = dict(zip(form.options, found.groups(), strict=True))
            listed = {"milestones": numbers["milestones"].split(",")} if "milestones" in numbers else {}
            return {"name": name, "warmup_frac": 0.0, **numbers, **listed}
    told = ", ".join(f"{form.example} ({name}: {', '.join(form.options)})" for name, form in forms.items())
    raise ValueError(f"no schedule '{text}': use {told}, or one of {', '.join(SCHEDULES)}, got '{text}'")
