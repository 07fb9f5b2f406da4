"""The loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, field_validator

from shards.cli.table import Row, Table
from trainer.recipes.options.choice import ChoiceSection, Uses, list_uses, settle


@dataclass(frozen=True)
class LossRow(Row):
    """A loss for pictures with one label. Its builder takes the class names, and options by keyword."""

    several: str = ""
    """Builder of the loss for pictures with several labels; takes the classes' positive weights and the same options.
    Empty: there is none."""


LOSSES: Final = Table(
    "losses",
    LossRow("cross_entropy", "over the softmax", "trainer.step.loss:build_cross_entropy", {"label_smoothing": 0.0}),
    LossRow(
        "focal", "cross-entropy with less weight on easy samples",
        "trainer.step.loss:build_focal", {"focal_gamma": 2.0, "focal_alpha": None},
    ),
    LossRow(
        "bce", "binary cross-entropy of each class separately; also for pictures with several labels or none",
        "trainer.step.loss:build_one_vs_all", {"label_smoothing": 0.0},
        several="trainer.step.multi_label_loss:build_each",
    ),
)  # fmt: skip
USES_OF_WEIGHTS: Final[Uses] = {
    "none": {},
    "balanced": {},
    "effective": {"effective_beta": 0.999},
}
USES_OF_TEACHER: Final[Uses] = {
    "loss without teacher": {},
    "teacher": {"teacher_temperature": 4.0, "teacher_share": 0.5},
}


class LossOptions(ChoiceSection):
    """The loss of a sample and its weight; options that the chosen loss does not use are null."""

    name: Annotated[str, BeforeValidator(LOSSES.check)] = "cross_entropy"
    """Name of the loss."""
    label_smoothing: float | None = Field(default=None, ge=0, lt=1)
    """Share of the target spread over all classes; with several labels, over yes and no of each class."""
    focal_gamma: float | None = Field(default=None, ge=0)
    """Exponent that reduces the weight of easy samples; 0 is plain cross-entropy."""
    focal_alpha: float | list[float] | None = None
    """Factor of each class's losses, in class order; one number A in (0, 1) for two classes means [1 - A, A].
    Unlike class_weights, it does not enter the divisor of the mean."""
    class_weights: str | list[float] | dict[str, float] = "none"
    """Weight of each class: none; balanced (inverse to its number of samples); effective (inverse to its effective
    number of samples); a list with a number for each class, in class order; or class: number, where other classes
    weigh 1. With several labels the weights apply where a class is present; balanced is then the number of samples
    without the class divided by the number with it."""
    effective_beta: float | None = Field(default=None, gt=0, lt=1)
    """For class_weights=effective: near 1 it approaches balanced, near 0 none."""
    sample_weights: bool = True
    """Use the dataset's sample weights."""
    teacher: str | None = None
    """Teacher for distillation: folder of a bundle with the dataset's classes."""
    teacher_temperature: float | None = Field(default=None, gt=0)
    """Divisor of the logits of model and teacher before they are compared."""
    teacher_share: float | None = Field(default=None, gt=0, le=1)
    """Share of the distance to the teacher in the loss; the rest is the distance to the labels."""

    @classmethod
    def _settle(cls, values: dict[str, Any]) -> dict[str, Any]:
        values = settle(values, values.get("name", cls.model_fields["name"].default), list_uses(LOSSES))
        weights = values.get("class_weights", "none")
        values = settle(values, weights if isinstance(weights, str) else "none", USES_OF_WEIGHTS)
        taught = "teacher" if values.get("teacher") is not None else "loss without teacher"
        return settle(values, taught, USES_OF_TEACHER)

    @field_validator("class_weights", mode="before")
    @classmethod
    def _read_weights(cls, value: object) -> object:
        if isinstance(value, str):
            if value not in USES_OF_WEIGHTS:
                raise ValueError(f"class weights must be {', '.join(USES_OF_WEIGHTS)}, a list, or class: number")
            return value
        if isinstance(value, dict):  # YAML reads a class named 7 as a number
            numbers = _read_weights([*value.values(), 1.0])  # 1.0 for unnamed classes
            return {str(name): number for name, number in zip(value, numbers, strict=False)}
        return _read_weights(value)

    @field_validator("focal_alpha", mode="before")
    @classmethod
    def _read_alpha(cls, value: object) -> object:
        return _read_weights(value) if isinstance(value, list) else value

    @field_validator("focal_alpha")
    @classmethod
    def _is_share(cls, value: float | list[float] | None) -> float | list[float] | None:
        if isinstance(value, float) and not 0 < value < 1:
            raise ValueError("a number for two classes must be in (0, 1)")
        return value


def _read_weights(value: object) -> list[float]:
    """Return the validated numbers of a list from YAML, which reads 1e-3 as text."""
    sentence = "weights must be numbers of at least 0, not all 0"
    if not isinstance(value, list):
        raise ValueError(sentence)
    try:
        numbers = [float(number) for number in value]
    except (TypeError, ValueError) as err:
        raise ValueError(sentence) from err
    if not any(numbers) or any(number < 0 or not math.isfinite(number) for number in numbers):
        raise ValueError(sentence)
    return numbers
